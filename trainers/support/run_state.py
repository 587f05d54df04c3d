"""A run's folder between two epochs: its state, model and logits, and a check that the run can resume from them.

A new model and its logits have a temporary name until the state that includes their epoch is on disk: after a kill in
between, model and logits are those of an epoch in the stored state.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from trainers.support.checkpoint import load_state, read_notes, save_state, save_weights
from trainers.support.checksummed import load_array, save_array, weights_ok
from trainers.support.errors import EnvironmentFault
from trainers.support.failpoints import failpoint
from trainers.support.files import NEXT, sync_folder

log = logging.getLogger(__name__)

STATE, WEIGHTS, LOGITS = "last.ckpt", "model.safetensors", "val_logits.npy"


@dataclass(frozen=True)
class Model:
    """The content for model.safetensors and val_logits.npy: a selected epoch, copied when it ended."""

    weights: Callable[[], Mapping[str, Tensor]]  # waits for the copy
    notes: Mapping[str, Any]
    logits: np.ndarray | None


def write(folder: Path, state: Callable[[], Mapping[str, Any]], model: Model | None) -> None:
    """Write a state to disk, after the model of its selected epoch, if that is not on disk yet."""
    if model and model.logits is not None:
        save_array(folder / f"{NEXT}{LOGITS}", model.logits)
    if model:
        save_weights(folder / f"{NEXT}{WEIGHTS}", model.weights(), model.notes)
    found = state()
    save_state(folder / STATE, found)
    settle(folder, len(found["epochs"]))


def state(folder: Path, recipe: str, *, validated: bool) -> dict[str, Any] | None:
    """Return the state from which an earlier call can resume; None, with a log entry, if it cannot be used.

    `recipe` is its JSON; `validated`: the run evaluates val and stores its logits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = load_state(folder / STATE)
    why = _useless(folder, found, recipe, validated) if (folder / STATE).exists() else ""
    if why:
        log.warning("%s: training starts from scratch", why)
    found = None if why else found
    settle(folder, len(found["epochs"]) if found else 0)
    return found


def settle(folder: Path, done: int) -> None:
    """Give new weights their final name, after everything else; drop those of an epoch beyond the first `done`.

    They belong to an epoch after those of the previous state: any of them in the new state is its selected one.
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
    """Return the number of the epoch whose weights these are; None if there are none, or they are unreadable."""
    try:
        return int(read_notes(weights)["epoch"]["number"])
    except EnvironmentFault:
        return None


def _useless(folder: Path, found: dict[str, Any] | None, recipe: str, validated: bool) -> str:
    """Return why a run cannot resume from the state that was found; empty if it can."""
    if found is None:
        return f"{folder / STATE} is damaged"
    if _asked(found["recipe"]) != _asked(recipe):
        return f"{folder / STATE} is from another recipe"
    for name in (WEIGHTS, LOGITS) if validated else (WEIGHTS,):
        both = [path for path in (folder / f"{NEXT}{name}", folder / name) if path.exists()]
        if not both:
            return f"{folder / name} is missing"
        if bad := [path for path in both if not _sound(path)]:
            return f"{bad[0]} is damaged"
    return ""


def _asked(recipe: str) -> dict[str, Any]:
    """Return the content of a recipe except the path of its initial weights, which have already been read."""
    asked: dict[str, Any] = json.loads(recipe)
    return asked | {"train": {key: value for key, value in asked["train"].items() if key != "weights"}}


def _sound(path: Path) -> bool:
    if path.suffix == ".safetensors":
        return weights_ok(path)
    try:
        load_array(path)
    except EnvironmentFault:
        return False
    return True
