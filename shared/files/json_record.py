"""What a JSON file of ours, or a line of one, holds once it is read."""

from collections.abc import Mapping
from typing import Any

JsonRecord = Mapping[str, Any]
"""A JSON object by its keys: a run, one of its rounds, a coordinator's status."""
