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
    side: int | None = None,
    bf16: bool = False,
    seconds: float | None = None,
) -> list[dict[str, Any]]:
    """Return one answer per recipe, with images per second, memory and parameters, on the device of the first slot.
    Each is timed for at least `seconds`, by default 2, on images of `side` unless it is None or the network is built
    for one size; the answer tells the side and the seconds that it took.

    All slots of that device are timed at the same time, as in a sweep, and the slowest one counts. With `bf16`, the
    answer includes the speed-up of that format on a CPU.
    """
    request = {
        "recipes": [recipe.model_dump(mode="json") for recipe in recipes],
        "extensions": list(map(str, extensions)),
        "categories": [asdict(category) for category in categories],
        "side": side,
        "bf16": bf16,
        "seconds": seconds,
    }
    together = [slot for slot in slots if slot.home == slots[0].home]
    with ThreadPoolExecutor(len(together)) as pool:
        found = list(pool.map(lambda slot: _measured(slot, request), together))
    return [min(each, key=lambda one: float(one["train_images_per_second"])) for each in zip(*found, strict=True)]


def _measured(slot: Slot, request: dict[str, Any]) -> list[dict[str, Any]]:
    what, where = "the timing of a few steps", {"device": slot.device}
    answers: list[dict[str, Any]] = ask("-m", MODULE, what=what, request=request | where, env=environment(slot))
    return answers
