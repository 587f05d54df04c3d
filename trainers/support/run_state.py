"""A run's folder between two epochs: its state, its model and logits, and whether a run can go on there.

A new model and its logits lie under another name until the state that knows of their epoch is there: a kill in
between leaves those of an epoch that the state on disk has.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from trainers.support.checkpoint import load_state, read_notes, save_state, save_weights, sound
from trainers.support.checksummed import load_array, save_array
from trainers.support.errors import EnvironmentFault
from trainers.support.failpoints import failpoint
from trainers.support.files import NEXT, sync_folder

log = logging.getLogger(__name__)

STATE, WEIGHTS, LOGITS = "last.ckpt", "model.safetensors", "val_logits.npy"


@dataclass(frozen=True)
class Model:
    """What model.safetensors and val_logits.npy will be: an epoch that counts, copied when it ended."""

    weights: Callable[[], Mapping[str, Tensor]]  # waits for the copy
    notes: Mapping[str, Any]
    logits: np.ndarray | None


def write(folder: Path, state: Callable[[], Mapping[str, Any]], model: Model | None) -> None:
    """Put a state on disk, and before it the model that it counts, where that is not there yet."""
    if model and model.logits is not None:
        save_array(folder / f"{NEXT}{LOGITS}", model.logits)
    if model:
        save_weights(folder / f"{NEXT}{WEIGHTS}", model.weights(), model.notes)
    found = state()
    save_state(folder / STATE, found)
    settle(folder, len(found["epochs"]))


def state(folder: Path, recipe: str, *, validated: bool) -> dict[str, Any] | None:
    """What an earlier call left to go on from; None, said in the log, when that cannot be used.

    `recipe` is its JSON; `validated`: the run looks at val, and leaves logits of it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = load_state(folder / STATE)
    why = _useless(folder, found, recipe, validated) if (folder / STATE).exists() else ""
    if why:
        log.warning("%s: training starts over", why)
    found = None if why else found
    settle(folder, len(found["epochs"]) if found else 0)
    return found


def settle(folder: Path, done: int) -> None:
    """Give new weights their name, last of all; drop those of an epoch after the `done` first ones.

    They are of an epoch after those of the state before: what the new state has, it counts.
    """
    number = _epoch(folder / f"{NEXT}{WEIGHTS}")
    known = number is not None and number <= done
    for name in (LOGITS, WEIGHTS):
        new = folder / f"{NEXT}{name}"
        if known and new.exists():
            new.replace(folder / name)
            failpoint(f"settled {name}")
        new.unlink(missing_ok=True)
    sync_folder(folder)


def _epoch(weights: Path) -> int | None:
    """The number of the epoch whose weights these are; None where there are none, or none that can be read."""
    try:
        return int(read_notes(weights)["epoch"]["number"])
    except EnvironmentFault:
        return None


def _useless(folder: Path, found: dict[str, Any] | None, recipe: str, validated: bool) -> str:
    """Why a run cannot go on from the state that was found; nothing where it can."""
    if found is None:
        return f"{folder / STATE} is damaged"
    if _asked(found["recipe"]) != _asked(recipe):
        return f"{folder / STATE} is of another recipe"
    for name in (WEIGHTS, LOGITS) if validated else (WEIGHTS,):
        both = [path for path in (folder / f"{NEXT}{name}", folder / name) if path.exists()]
        if not both:
            return f"{folder / name} is missing"
        if bad := [path for path in both if not _sound(path)]:
            return f"{bad[0]} is damaged"
    return ""


def _asked(recipe: str) -> dict[str, Any]:
    """What a recipe says, but for the place of the weights that training started from: those were read."""
    asked: dict[str, Any] = json.loads(recipe)
    return asked | {"train": {key: value for key, value in asked["train"].items() if key != "weights"}}


def _sound(path: Path) -> bool:
    if path.suffix == ".safetensors":
        return sound(path)
    try:
        load_array(path)
    except EnvironmentFault:
        return False
    return True
