"""The training speed of recipes on a device, timed over a few steps in a separate process."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.executors.local import environment
from sweeper.system.ask import ask
from sweeper.system.devices import Slot
from trainers.config import Recipe

if TYPE_CHECKING:
    from trainers.data.layouts import Category

MODULE = "trainers.throughput"


def measure(
    recipes: Sequence[Recipe],
    categories: Sequence["Category"],
    slots: Sequence[Slot],
    extensions: Sequence[Path] = (),
    *,
    bf16: bool = False,
    seconds: float | None = None,
) -> list[dict[str, Any]]:
    """Return one answer per recipe, with images per second, memory and parameters, on the device of the first slot.
    Each is timed for at least `seconds`, by default 2.

    All slots of that device are timed at the same time, as in a sweep, and the slowest one counts. With `bf16`, the
    answer includes the speed-up of that format on a CPU.
    """
    side = [slot for slot in slots if slot.home == slots[0].home]
    with ThreadPoolExecutor(len(side)) as pool:
        found = list(pool.map(lambda slot: _measured(recipes, categories, slot, extensions, bf16, seconds), side))
    return [min(each, key=lambda one: float(one["train_images_per_second"])) for each in zip(*found, strict=True)]


def _measured(
    recipes: Sequence[Recipe],
    categories: Sequence["Category"],
    slot: Slot,
    extensions: Sequence[Path],
    bf16: bool,
    seconds: float | None,
) -> list[dict[str, Any]]:
    request = {
        "device": slot.device,
        "recipes": [recipe.model_dump(mode="json") for recipe in recipes],
        "extensions": list(map(str, extensions)),
        "categories": [asdict(category) for category in categories],
        "bf16": bf16,
        "seconds": seconds,
    }
    answers: list[dict[str, Any]] = ask(
        "-m", MODULE, what="the timing of a few steps", request=request, env=environment(slot)
    )
    return answers
