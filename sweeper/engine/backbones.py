"""timm's backbones and where their weights are, asked in a process of its own; what was counted is remembered."""

import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from sweeper.store import paths
from sweeper.system import subprocesses
from sweeper.system.ask import ask
from trainers.support.files import write_text

MODULE = "trainers.models.backbones"
MEMORY = "backbones.json"


class Found(NamedTuple):
    """Backbones as mappings of name, parameters, macs, input_size, licence, weights and missing."""

    backbones: list[dict[str, Any]]
    more: int = 0  # that match, too
    near: Sequence[str] = ()  # names that were meant where none matches


def find(pattern: str = "", *, names: Sequence[str] = (), weights: str = "", fetch: Sequence[str] = ()) -> Found:
    """Those of `names` that timm has, and those that match `pattern`.

    `weights` is a folder of local weights; of the names in `fetch` the hub's weights are fetched, or it is said why
    that fails.
    """
    memory = paths.cache() / MEMORY
    version = metadata.version("timm")
    counted = _remembered(memory).get(version, {})
    request = {"pattern": pattern, "names": list(names), "weights": weights, "fetch": list(fetch), "counted": counted}
    answer = ask("-m", MODULE, what="the list of backbones", request=request, env=subprocesses.environment())
    found = Found(answer["backbones"], answer["more"], answer["near"])
    new = {one["name"]: {key: one[key] for key in ("parameters", "macs")} for one in found.backbones}
    if not new.keys() <= counted.keys():
        write_text(memory, json.dumps({version: counted | new}))
    return found


def _remembered(memory: Path) -> dict[str, Any]:
    """What was counted, by the version of timm."""
    try:
        stored = json.loads(memory.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return stored if isinstance(stored, dict) else {}
