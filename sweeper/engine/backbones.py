"""Look up timm's backbones and their weights in a separate process; sizes counted once are cached."""

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
    """The backbones found, each a mapping of name, parameters, macs, input_size, licence, weights and missing."""

    backbones: list[dict[str, Any]]
    more: int = 0  # further matches, not listed
    near: Sequence[str] = ()  # similar names, if nothing matches


def find(pattern: str = "", *, names: Sequence[str] = (), weights: str = "", fetch: Sequence[str] = ()) -> Found:
    """Return those of `names` that timm has, and the backbones that match `pattern`.

    `weights` is a folder of local weights. Weights of the backbones in `fetch` are downloaded from the hub; where
    that fails, `missing` gives the reason.
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
    """Return the cached sizes, keyed by timm version."""
    try:
        stored = json.loads(memory.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return stored if isinstance(stored, dict) else {}
