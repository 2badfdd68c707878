"""Which builds work together: the same major version, at most one minor version apart."""

import re

_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})(?:\.\d{1,6})?(?:[^0-9].*)?")


def disagreement(coordinator: str, site: str) -> str | None:
    """Return why these two versions cannot work together, or None if they can.

    Within a major version messages keep their form (``tests/vectors`` holds them byte for byte; a
    change of form is a new ``consilium.shared.wire.encoding.VERSION``), so a hospital can upgrade a
    little later than the coordinator, or a little earlier.
    """
    if coordinator == site:
        return None
    ours, theirs = _numbers(coordinator), _numbers(site)
    if ours is None or theirs is None:
        unknown = coordinator if ours is None else site
        return (
            f"version {unknown[:32]!r} is not one of a released build, so nobody can tell whether "
            "both ends understand each other; install a release"
        )
    if ours[0] == theirs[0] and abs(ours[1] - theirs[1]) <= 1:
        return None
    behind = "the site" if theirs < ours else "the coordinator"
    lead = max(ours, theirs)
    needed = f"{lead[0]}.{max(lead[1] - 1, 0)}"
    return (
        f"the coordinator runs version {coordinator[:32]} and the site {site[:32]}; they may be "
        f"one minor version apart: upgrade {behind} to {needed} or later"
    )


def _numbers(version: str) -> tuple[int, int] | None:
    found = _VERSION.fullmatch(version)
    return (int(found[1]), int(found[2])) if found else None
