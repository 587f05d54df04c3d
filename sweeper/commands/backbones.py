"""`sweep backbones`: timm's models with their size, cost and licence, and the location of their weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweeper.engine import backbones, presets
from sweeper.engine.backbones import Found
from sweeper.errors import EnvironmentFault, UserError
from trainers.support import weights_folder
from trainers.support.files import expanded

HEADERS = ("backbone", "parameters", "MACs", "input", "weights", "licence")
PLACES = {"local": "in the folder", "cached": "on this machine", "hub": "on the hub", "none": "none published"}


def find(pattern: str | None, weights: str | None) -> Found:
    """Return the backbones that match `pattern`; without a pattern, those of the presets and the folder `weights`.

    Raises UserError if none matches.
    """
    refuse_no_folder(weights)
    local = weights_folder.names(weights) if weights and not pattern else []
    usual = [] if pattern else [name for kind in presets.TABLE for name in presets.backbones(kind)]
    found = backbones.find(pattern or "", names=[*local, *usual], weights=weights or "")
    if not found.backbones:
        near = f"did you mean {' or '.join(found.near)}?" if found.near else "part of a name is enough, such as vit"
        raise UserError(f"timm has no backbone like {pattern!r}", where="sweep backbones", help=near)
    return found


def refuse_no_folder(weights: str | None) -> None:
    """Raise EnvironmentFault if the folder of weights is missing or holds no weights."""
    if weights is None:
        return
    advice = "give a folder of <backbone>.safetensors files, or of folders with config.json and model.safetensors"
    folder = Path(expanded(weights))
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "there is no such folder"
        raise EnvironmentFault(what, where=weights, help=advice)
    if not weights_folder.names(weights):
        raise EnvironmentFault("no weights in this folder", where=weights, help=advice)


def document(found: Found) -> dict[str, Any]:
    """Return the backbones as plain values for --json."""
    return {"schema_version": 1, "backbones": found.backbones, "more": found.more}


def cells(found: Found) -> list[Sequence[str]]:
    """Return the backbones as rows of a table."""
    return [
        (
            one["name"],
            "?" if one["parameters"] is None else f"{one['parameters'] / 1e6:,.1f} M",
            "?" if one["macs"] is None else f"{one['macs'] / 1e9:,.2f} G",
            str(one["input_size"]),
            PLACES[one["weights"]],
            one["licence"],
        )
        for one in found.backbones
    ]
