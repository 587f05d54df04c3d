"""The backbones of timm; `python -m trainers.models.backbones` answers in JSON, in a process of its own.

Networks are counted without allocating memory ("meta"). Weights are downloaded only on request.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from trainers.models import hub, majority, network, preflight  # preflight also registers ours
from trainers.support import weights_folder
from trainers.support.leaving import leave

MOST = 40  # backbones counted at once
FILE = "model.safetensors"
LOCAL, CACHED, HUB, NONE = "local", "cached", "hub", "none"
"""Where weights are: in the given folder, in the hub's cache, on the hub (not checked), or nowhere."""


@dataclass(frozen=True)
class Backbone:
    """One backbone, as named in `train.backbone`."""

    name: str
    parameters: int | None
    macs: int | None  # multiply-adds for one image of its own size; None, like parameters, if meta cannot count them
    input_size: int
    fixed_size: bool  # built for one input size
    licence: str
    weights: str
    missing: str = ""  # why its weights are unavailable, if that was checked


def matching(pattern: str) -> list[str]:
    """Return the names that contain `pattern`, or match its wildcards, each with the tag of its default weights.

    A pattern with a dot searches the names of all published weights.
    """
    wanted = pattern.lower()
    glob = wanted if any(sign in wanted for sign in "*?[") else f"*{wanted}*"
    known = timm.list_pretrained() if "." in wanted else timm.list_models()
    found = [name for name in known if fnmatchcase(name.lower(), glob) and name != majority.NAME]
    return found if "." in wanted else [_tagged(name) for name in found]


def _tagged(architecture: str) -> str:
    default = timm.get_pretrained_cfg(architecture)
    tag = default.tag if default is not None and default.has_weights else ""
    return f"{architecture}.{tag}" if tag else architecture


def alike(pattern: str) -> list[str]:
    """Return names close to one as people write it."""
    return preflight.alike(pattern.partition(".")[0])


def describe(name: str, weights: str, counted: dict[str, Any], *, fetch: bool) -> Backbone:
    """Describe one of timm's backbones; `counted`: figures that are already known."""
    default = timm.get_pretrained_cfg(name)
    size = int(default.input_size[-1]) if default is not None else 224
    figures = counted or _counted(name, size)
    where, licence = _place(name, weights, default)
    missing = preflight.not_given(name) if fetch and where == HUB else ""
    return Backbone(
        name,
        figures["parameters"],
        figures["macs"],
        size,
        network.is_fixed(name),
        licence or "unknown",
        where,
        missing,
    )


def _counted(name: str, size: int) -> dict[str, int | None]:
    """Count parameters and multiply-adds without allocating memory; None for what only a real network would show."""
    found: dict[str, int | None] = {"parameters": None, "macs": None}
    with suppress(NotImplementedError, RuntimeError), torch.device("meta"), torch.no_grad():
        net = timm.create_model(name).eval()
        found["parameters"] = sum(parameter.numel() for parameter in net.parameters())
        with FlopCounterMode(display=False) as counter:
            net(torch.empty(1, 3, size, size))
        found["macs"] = int(counter.get_total_flops()) // 2
    return found


def _place(name: str, weights: str, default: Any) -> tuple[str, str]:
    """Return the location of a backbone's weights, and their licence."""
    if weights:
        found = weights_folder.find(weights, name)
        if found.file.is_file():
            return LOCAL, weights_folder.config(found.config).licence if found.config else ""
    if default is None or not default.has_weights:
        return NONE, ""
    licence = str(default.license or "")
    if not default.hf_hub_id:
        return HUB, licence
    return CACHED if hub.is_cached(default.hf_hub_id, default.hf_hub_filename or FILE) else HUB, licence


def _names(asked: dict[str, Any]) -> list[str]:
    """Return the names in the request that timm knows, and those that match its pattern."""
    published = set(timm.list_pretrained())
    named = [
        name for name in asked.get("names", []) if name in published or ("." not in name and timm.is_model(name))
    ]
    return [*named, *(matching(asked["pattern"]) if asked.get("pattern") else [])]


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """Return the backbones, how many more there are, and similar names if there are none."""
    names = list(dict.fromkeys(_names(asked)))
    found = list(_described(names[:MOST], asked))
    near = alike(asked["pattern"]) if asked.get("pattern") and not names else []
    return {"backbones": [asdict(one) for one in found], "more": len(names[MOST:]), "near": near}


def _described(names: Sequence[str], asked: dict[str, Any]) -> Iterator[Backbone]:
    known = asked.get("counted", {})
    for done, name in enumerate(names):
        if name not in known and done and done % 10 == 0:
            print(f"counting backbones: {done}/{len(names)}", file=sys.stderr)
        yield describe(name, asked.get("weights") or "", known.get(name, {}), fetch=name in asked.get("fetch", ()))


def main() -> None:
    """Read {"names", "pattern", "weights", "counted", "fetch"} from stdin; write one object as a line of JSON.

    The weights of the names in `fetch` are downloaded.
    """
    asked = json.load(sys.stdin)
    print(json.dumps(answer(asked)))


if __name__ == "__main__":
    main()
    leave()
