"""The training speed of recipes on a device, timed over a few steps in a separate process, and the plan of hours."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper import text
from sweeper.engine.options import Options
from sweeper.executors.local import environment
from sweeper.space.space import Space
from sweeper.store import study_file
from sweeper.store.paths import StudyFolder
from sweeper.study import planner
from sweeper.study.planner import HoursPlan, Planner
from sweeper.system.ask import ask
from sweeper.system.devices import Slot
from sweeper.terminal import output
from trainers.config import Recipe

if TYPE_CHECKING:
    from sweeper.space.spec import StudySpec
    from trainers.data.layouts import Category, Table

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
    _announce(recipes, slots[0], side, seconds)
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


def _announce(recipes: Sequence[Recipe], slot: Slot, side: int | None, seconds: float | None) -> None:
    """Print what is timed and, if it is timed for `seconds` beside a budget of hours, for how long."""
    what, where = text.counted(len(recipes), "network"), slot.home
    sizes = " or ".join(dict.fromkeys(str(side or recipe.train.image_size) for recipe in recipes))
    least = text.format_duration(seconds * len(recipes)) if seconds else ""
    aside = f" (at least {least}, not counted as hours)" if least else ""
    output.print_message(f"timing a few steps of {what} at {sizes} px on {where}{aside}")


def _measured(slot: Slot, request: dict[str, Any]) -> list[dict[str, Any]]:
    what, where = "the timing of a few steps", {"device": slot.device}
    answers: list[dict[str, Any]] = ask("-m", MODULE, what=what, request=request | where, env=environment(slot))
    return answers


def planned(
    spec: "StudySpec", space: Space, table: "Table", options: Options, slots: Sequence[Slot], *, bf16: bool
) -> tuple[HoursPlan | None, Sequence[planner.Answer] | None]:
    """Return the plan of a study whose only budget is hours, that of its start or a new one; with a new one, also the
    answers of `measure` at its image size.

    None for other studies, for the fake trainer, which takes no measurable time, and for a cluster, which is unknown.
    """
    folder, retrains = StudyFolder.named(spec.study), options.retrains(spec)
    if before := planner.stored(folder):
        now = {"hours": spec.budget.hours or before.hours, "retrains": retrains, **planner.after(spec, before.slots)}
        return before.model_copy(update={**now, "pairs": before.pairs and now["pairs"]}), None
    if not spec.by_hours or study_file.read(folder) or options.ray or os.environ.get("SWEEP_TRAINER") == "fake":
        return None, None
    files, seconds = [file.path for file in spec.extensions], planner.timed_seconds(spec)

    def timed(recipes: Sequence[Recipe], side: int | None) -> Sequence[planner.Answer]:
        return measure(recipes, table.categories, slots, files, side=side, bf16=bf16, seconds=seconds)

    chooser = Planner(spec, space, table, slots, retrains, timed)
    plan = chooser.plan()
    return plan, chooser.answers_for(plan)
