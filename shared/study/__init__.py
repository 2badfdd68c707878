"""The study: everything a coordinator may ask of a site, declared, validated and digested.

TOML written by people enters; only a validated, frozen study comes out.
"""
