"""`sweep plan`: what a sweep would try, and what it would cost here. Times a few steps, trains nothing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sweeper import text
from sweeper.engine import disk_space, prepare, presets, timing
from sweeper.engine.options import Options
from sweeper.engine.prepare import PreparedStudy
from sweeper.system import devices, disks
from trainers.config import Recipe
from trainers.data import splitting
from trainers.data.summary import Summary

SAMPLES = 3
FEW = 200  # images of val below which folds are proposed
PAYS = 1.2  # speed-up from which another number format is proposed
FOLDS = 5  # folds to propose, if every class has that many images


@dataclass(frozen=True)
class Cost:
    """The cost of one backbone at one image size on the first device, measured over a few steps of random images."""

    backbone: str
    image_size: int | str  # the side of a square, otherwise a text such as 256 x 192
    batch_size: int
    parameters: int
    train_images_per_second: float
    val_images_per_second: float
    peak_memory_gb: float
    seconds_per_epoch: float
    fixed_size: bool = False  # the backbone is built for one image size
    bf16_speedup: float | None = None  # of training; None if it was not measured


@dataclass(frozen=True)
class Plan:
    """The plan of the file `source`; `hours` is for all trials in full length on all slots (auto: one per device)."""

    study: str
    source: str
    trials: int | None
    budget_hours: float | None
    configurations: int | None
    parameters: dict[str, str]
    samples: tuple[dict[str, Any], ...]
    images: dict[str, int]
    cache_gb: float
    cache_px: int  # side of the decoded images
    epochs: int  # of the longest training
    device: str
    slots: int
    costs: tuple[Cost, ...]
    hours: float | None
    disk_gb: float | None  # of checkpoints, once all trials have finished
    keep: int | None = None
    running_gb: float = 0.0  # additional space while trials run
    free_gb: float = 0.0
    folds: int | None = None  # trainings per trial
    proposal: str = ""  # advice to use folds, if val is small
    precision: str = ""  # advice on another number format, if it pays
    data: Summary | None = None
    preset: str = ""  # its name, and the values that it set
    jpeg: str = ""  # the cost of keeping decoded images as JPEG
    by_hours: dict[str, Any] | None = None  # how a budget of hours alone is spent
    spending: str = ""  # the same in words

    def document(self) -> dict[str, Any]:
        data = self.data.model_dump(mode="json") if self.data else None
        return {"schema_version": 1, **asdict(self), "data": data}


def plan(path: Path, options: Options) -> Plan:
    """Return the plan for the file at `path`; raises the errors that a run would raise before its first trial.

    The exception is weights that the model hub does not provide: a plan trains nothing and needs none.
    """
    prepared = prepare.prepare(path, options, for_plan=True)
    slots = devices.slots(options.devices) if prepared.per_device == "auto" else prepared.slots
    spec, space = prepared.spec, prepared.space
    recipes = list(space.recipes())
    files = [file.path for file in spec.extensions]
    answers = prepared.timed or timing.measure(recipes, prepared.table.categories, slots, files, bf16=True)
    costs = tuple(_cost(prepared, recipe, answer) for recipe, answer in zip(recipes, answers, strict=True))
    trials = spec.budget.trials or space.size
    return Plan(
        study=spec.study,
        source=str(path),
        trials=trials,
        budget_hours=spec.budget.hours,
        configurations=space.size,
        parameters=space.distributions(),
        samples=prepared.first_configurations(min(SAMPLES, trials or SAMPLES)),
        epochs=space.most_epochs,
        device=slots[0].name,
        slots=len(slots),
        costs=costs,
        folds=spec.search.folds,
        proposal=_proposal(prepared),
        precision=format_proposal(costs),
        data=prepared.summary,
        preset=presets.summary_line(spec),
        **_decoded(prepared),
        **_time(prepared, costs, trials, len(slots)),
        **_disk(prepared, recipes, costs, trials, len(slots)),
    )


def _decoded(prepared: PreparedStudy) -> dict[str, Any]:
    """Return the fields about the decoded images."""
    table, data, framing = prepared.table, prepared.spec.data, prepared.space.framing
    height, width = framing.size(data.size or 0)
    jpeg = prepare.reading_cost(table, data, framing)
    return {
        "images": {split: len(table.split(split)) for split in ("train", "val", "test")},
        "cache_gb": round(len(table.rows) * (jpeg.bytes if jpeg else height * width * 3 * 1.25) / 1e9, 3),
        "cache_px": data.size or 0,
        "jpeg": prepare.slower(table, jpeg) if jpeg else "",
    }


def _time(prepared: PreparedStudy, costs: Sequence[Cost], trials: int | None, slots: int) -> dict[str, Any]:
    """Return the fields about the hours: those that all trials take, and how a budget of hours is spent."""
    folds, epochs = prepared.spec.search.folds or 1, prepared.space.most_epochs
    mean = sum(cost.seconds_per_epoch for cost in costs) / len(costs)
    by_hours = prepared.plan if prepared.spec.by_hours else None
    return {
        "hours": round(trials * (presets.TRIAL_S + folds * epochs * mean) / slots / 3600, 4) if trials else None,
        "by_hours": by_hours.document() if by_hours else None,
        "spending": by_hours.line if by_hours else "",
    }


def _disk(
    prepared: PreparedStudy, recipes: Sequence[Recipe], costs: Sequence[Cost], trials: int | None, slots: int
) -> dict[str, Any]:
    """Return the fields about the disk."""
    keep, folds = prepared.spec.keep_checkpoints, prepared.spec.search.folds or 1
    alone = [disk_space.size(r.train, 4 * cost.parameters) for r, cost in zip(recipes, costs, strict=True)]
    bytes_of = [disk_space.of_folds(one, folds) for one in alone]
    kept = trials if keep is None or trials is None else min(trials, keep)
    return {
        "disk_gb": round(kept * max(one.while_running for one in bytes_of) / 1e9, 3) if kept else None,
        "keep": keep,
        "running_gb": round(slots * max(one.while_saving for one in bytes_of) / 1e9, 3),
        "free_gb": round(disks.free(prepared.folder.root) / 1e9, 3),
    }


def _proposal(prepared: PreparedStudy) -> str:
    """Return advice to use folds if val is too small to distinguish trials, else ""."""
    train, val = prepared.training_sizes
    if prepared.spec.search.folds or val >= FEW:
        return ""
    most = min(FOLDS, splitting.most_folds(prepared.table))
    if most < 2:
        return ""
    return (
        f"val has only {text.counted(val, 'image')}, too few to rank trials well: search: {{folds: {most}}} judges"
        f" each trial on all {train + val} images, at {most} trainings per trial"
    )


def format_proposal(costs: Sequence[Cost]) -> str:
    """Return advice to use bf16 if a CPU trains these backbones, taken together, faster with it, else ""."""
    seconds = [1 / cost.train_images_per_second for cost in costs]
    halved = [s / cost.bf16_speedup for s, cost in zip(seconds, costs, strict=True) if cost.bf16_speedup]
    if len(halved) < len(costs) or (gain := sum(seconds) / sum(halved)) < PAYS:
        return ""
    return f"this CPU trains {gain:.1f} times as fast with train: {{precision: bf16}} (measured over a few steps)"


def _cost(prepared: PreparedStudy, recipe: Recipe, answer: Mapping[str, Any]) -> Cost:
    train, val = prepared.training_sizes
    seconds = train / answer["train_images_per_second"] + val / answer["val_images_per_second"]
    size = recipe.train.image_size
    return Cost(
        backbone=recipe.train.backbone,
        image_size=size if isinstance(size, int) else str(size),
        batch_size=recipe.train.batch_size,
        seconds_per_epoch=round(seconds, 3),
        **{name: value for name, value in answer.items() if name not in ("side", "seconds")},
    )


# ------------------------------------------------------------------------------------------ output
def lines(plan: Plan) -> Iterator[str]:
    """Yield the plan as text."""
    many = text.counted(plan.trials, "trial") if plan.trials else "as many trials as fit"
    folds = f"{plan.folds} folds of " if plan.folds else ""
    most = "up to " if "epochs" in plan.parameters else ""
    yield f"study {plan.study}: {many}, each of {most}{folds}{text.counted(plan.epochs, 'epoch')}"
    yield from _opened(plan)
    images = ", ".join(f"{count:,} {split}" for split, count in plan.images.items())
    kept = f" as JPEG, {plan.jpeg}" if plan.jpeg else ""
    yield f"images: {images}; decoded at {plan.cache_px} px, {plan.cache_gb:.2f} GB{kept}"
    if plan.data:
        yield from prepare.understood(plan.data, plan.source)
    yield from [plan.proposal] * bool(plan.proposal)
    yield from prepare.executed()
    yield from [plan.preset] * bool(plan.preset)
    yield f"on {plan.device}, measured with random images"
    for cost in plan.costs:
        step = cost.batch_size / cost.train_images_per_second
        yield (
            f"  {cost.backbone} at {cost.image_size} px, batch {cost.batch_size}: {step:.3f} s/step, "
            f"{cost.train_images_per_second:,.0f} images/s, epoch {text.format_duration(cost.seconds_per_epoch)}, "
            f"peak {cost.peak_memory_gb:.2f} GiB, {cost.parameters:,} parameters"
        )
    yield from [plan.precision] * bool(plan.precision)
    if plan.hours is not None:
        limit = f"; the budget stops it after {plan.budget_hours:g} h" if plan.budget_hours else ""
        most, slots = text.format_duration(plan.hours * 3600), text.counted(plan.slots, "slot")
        yield f"time: at most {most} on {slots}, less with pruning{limit}"
    elif plan.budget_hours and not plan.by_hours:
        yield f"time: {plan.budget_hours:g} h, the budget"
    yield from [f"plan: {plan.spending}"] if plan.spending else []
    if plan.disk_gb is not None:
        of = f" of the best {plan.keep}" if plan.keep else ""
        yield (
            f"disk: up to {plan.disk_gb:.2f} GB of checkpoints{of}, {plan.running_gb:.2f} GB while trials run; "
            f"{plan.free_gb:.1f} GB free"
        )


def _opened(plan: Plan) -> Iterator[str]:
    """Yield the parameters and the first configurations."""
    if not plan.parameters:
        yield "no parameters: a single recipe"
        return
    many = "unlimited configurations"
    if plan.configurations is not None:
        many = text.counted(plan.configurations, "configuration")
    yield f"parameters ({many})"
    yield from (f"  {name}: {words}" for name, words in plan.parameters.items())
    yield "first configurations (later trials depend on the results of earlier ones)"
    for number, params in enumerate(plan.samples):
        yield f"  {number}: " + ", ".join(f"{name}={_short(value)}" for name, value in params.items())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
