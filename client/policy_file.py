"""Reads ``policy.toml``."""

import tomllib
from dataclasses import fields
from pathlib import Path

from client.policy import Policy
from shared.errors import SettingsError


def read_policy(folder: Path) -> Policy:
    """Return the policy in a site's folder; the default one if there is none."""
    file = folder / "policy.toml"
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Policy()
    except (OSError, ValueError) as error:
        raise SettingsError(f"{file}: cannot be read ({error}); correct it") from error
    known = {field.name for field in fields(Policy)}
    if unknown := sorted(content.keys() - known):
        raise SettingsError(f"{file}: {unknown[0]!r} is no setting of a policy; remove it")
    return Policy(**content)
