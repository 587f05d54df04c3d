"""Checks everything that can go wrong before the first trial exists."""

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper import text
from sweeper.engine import preflight, presets, timing
from sweeper.engine.disk_space import DiskEstimate
from sweeper.engine.options import Options
from sweeper.errors import DataError, EnvironmentFault, UserError
from sweeper.space import defaults
from sweeper.space.space import Space
from sweeper.space.tree import Choice, Node
from sweeper.store import paths, records, studies, study_file
from sweeper.store.paths import StudyFolder
from sweeper.study import planner
from sweeper.study.planner import HoursPlan
from sweeper.system import devices
from sweeper.terminal import output
from sweeper.terminal.output import counting
from sweeper.text import join_or
from trainers import extensions
from trainers.metrics.definitions import definition, lacking, names
from trainers.support.files import expanded
from trainers.support.threads import checkpoint_interval

if TYPE_CHECKING:
    from sweeper.space.spec import StudySpec
    from trainers.config import TrainConfig
    from trainers.data.check import Findings
    from trainers.data.decoding import JpegCost
    from trainers.data.layouts import Table
    from trainers.data.summary import Summary
    from trainers.data_config import DataConfig, Framing

MOST = 8  # trials side by side on a CPU
WORKER_GB, PIXEL_GB = 0.7, 1.8e-6  # memory of a worker on a CPU, and the memory per pixel of a batch


def refuse_metrics(read: "StudySpec", table: "Table") -> None:
    """Raise UserError if `metric` or `selection` needs a category that the data set lacks."""
    absent = lacking([category.multi for category in table.categories])
    asked = [(read.metric, "metric"), *((node.value, node.where) for node in _options(read.train, "selection"))]
    for metric, where in asked:
        if metric in absent:
            raise UserError(
                f"{metric} needs a category with {' or '.join(definition(metric).kinds)}, and the data set has none",
                where=where,
                help=f"use {join_or([name for name in names() if name not in absent])}",
            )


def refuse_unseen(train: Node, table: "Table") -> None:
    """Raise UserError if a trial may weight classes by their training images while a class has none.

    The weight of that class would be made up. A logit-adjusted loss is allowed: it counts a missing class as one
    image, and so gives it the margin of the rarest class.
    """
    from trainers.data import check

    chosen = next(_weighing(train), None)
    if chosen is None or not (absent := check.unseen(table)):
        return
    more = f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
    raise UserError(
        f"class_weights {chosen.value} needs a training image of every class, but no training image shows "
        f"{absent[0]}{more}",
        where=chosen.where,
        help="write class_weights: none, or add a training image of the class; `sweep data check` lists all of them",
    )


def refuse_folds(read: "StudySpec", table: "Table") -> None:
    """Raise DataError if the data set is too small for the requested cross-validation."""
    from trainers.data import splitting

    count = read.search.folds
    if count and (faults := splitting.judge_folds(table, read.data, count)):
        raise DataError(faults)


def refuse_absent_weights(train: Node) -> None:
    """Raise EnvironmentFault if the named local weights do not exist; this is cheaper than checking the data set."""
    if any(node.value is False for node in _options(train, "pretrained")):
        return  # they would not be read, which the preflight reports
    for node in _options(train, "weights"):
        if isinstance(node.value, str) and not Path(expanded(node.value)).exists():
            raise EnvironmentFault(
                f"there are no weights at {node.value!r}",
                where=node.where,
                help="give a weights file with --set train.weights=PATH, or train from random weights with"
                " --set train.pretrained=false",
            )


def _weighing(train: Node) -> Iterator[Node]:
    """Yield every value that a trial may get for the loss's class_weights, except `none`."""
    for loss in _options(train, "loss"):
        yield from (weights for weights in _options(loss, "class_weights") if weights.value != "none")


def _options(node: Node, key: str) -> Iterator[Node]:
    """Yield the values under `key`: nothing, one value, or every option of an open parameter."""
    waiting = [node.value[key]] if isinstance(node.value, dict) and key in node.value else []
    while waiting:
        option = waiting.pop(0)
        if isinstance(option.value, Choice):
            waiting += option.value.nodes
        else:
            yield option


ELONGATED = 1.5  # ratio of the sides from which squashing is worth a note
OF_VAL = "val has "  # start of the note on the size of val, which does not matter with folds
IN_SHORT = 3  # kinds of notes in one line


def checked(data: "DataConfig", study: StudyFolder | None = None) -> "Findings":
    """Return the data set after checking every label and image once. Raises DataError with every fault, or
    EnvironmentFault if an existing `study` has used a folder that is gone.
    """
    from trainers.data import check

    if study and not Path(expanded(data.root)).exists():
        _refuse_lost(data.root, study)
    with counting("checking images") as count:
        return check.ensure(data, paths.cache(), count)


def _refuse_lost(root: str, study: StudyFolder) -> None:
    """Raise EnvironmentFault if an existing study has used the missing folder `root`, or uses another one by now; if
    that is missing as well, `root` may be a typo.
    """
    recorded = study_file.identity(study).get("data", {}).get("root")
    if recorded == root:
        again = f"{studies.resume_command(study)} --set data.root=FOLDER"
        help_ = f"if its images were moved, name their folder: {again}"
        raise EnvironmentFault(f"study '{study.name}' has lost its images", where=root, help=help_)
    if recorded and Path(expanded(recorded)).exists():
        help_ = f"write data.root: {recorded} in the search space, or add --set data.root={shlex.quote(recorded)}"
        raise EnvironmentFault(f"study '{study.name}' has its images at {recorded} now", where=root, help=help_)


def executed() -> Iterator[str]:
    """Yield a line for each file of the user's code that a sweep runs."""
    for line in extensions.summary():
        yield f"the sweep runs your code from {line}"


def understood(data: "Summary", source: str) -> Iterator[str]:
    """Yield lines about the data set of the file `source`: the figures, and all notes in one line."""
    yield from data.lines(output.columns())
    if data.notes:
        more = f"; and {len(data.notes) - IN_SHORT} more" if len(data.notes) > IN_SHORT else ""
        yield f"note: {'; '.join(data.notes[:IN_SHORT])}{more} (details: sweep data check {shlex.quote(source)})"


def settled(data: "DataConfig", space: Space, table: "Table", folder: StudyFolder) -> "DataConfig":
    """Return the data with size and format of the cached images filled in: the study's own, or derived ones."""
    from trainers.data import cache

    open_keys = _open(data)
    if before := study_file.read(folder):
        return data.model_copy(update={key: before["identity"]["data"][key] for key in open_keys})
    size = data.size or cache.side(space.largest_image_size, table, space.smallest_window, space.framing)
    sized = data.model_copy(update={"size": size})
    return sized.model_copy(update={"cache": cache.kind(table, sized, paths.cache(), space.framing)})


def _trains_on(options: Options, homes: Sequence[devices.Slot]) -> str:
    """Return the device that trials get; a cluster is assumed to have GPUs."""
    if options.ray and options.devices is None:
        return "cuda"
    return homes[0].device


def _open(data: "DataConfig") -> list[str]:
    """Return the keys of `data` about the cache that the file leaves out."""
    return ["size"] * (data.size is None) + ["cache"] * (data.cache == "auto")


def reading_cost(table: "Table", data: "DataConfig", framing: "Framing") -> "JpegCost | None":
    """Measure the cost of keeping the images as JPEG on a few of them; None if they are kept as raw pixels."""
    from trainers.data.decoded_files import ImageFormat
    from trainers.data.decoding import jpeg_cost

    if data.cache != "jpeg":
        return None
    return jpeg_cost(table, ImageFormat.of(data.size or 0, "jpeg", framing))


def training_sizes(table: "Table", spec: "StudySpec") -> tuple[int, int]:
    """Return how many images one training of a trial trains on, and how many it is evaluated on."""
    from trainers.data import splitting

    return splitting.training_sizes(table, spec.search.folds)


def slower(table: "Table", cost: "JpegCost") -> str:
    """Return a phrase with how much JPEG slows training down."""
    images = len(table.split("train")) + len(table.split("val"))
    each = text.format_duration(images * cost.ms / 1000)
    return f"reading takes {cost.ms:.2f} ms of one core per image, or {each} per epoch"


def squashed_shapes(table: "Table", space: Space) -> Iterator[str]:
    """Yield a note if tall or wide images are squashed to squares, with the line of YAML that keeps their shape."""
    from trainers.data import cache

    side, size = space.largest_image_size, cache.median_size(table)
    if size is None or space.framing.fit != "squash" or not space.is_square:
        return
    aspect = size[1] / size[0]
    if max(aspect, 1 / aspect) >= ELONGATED:
        height, width = (max(32, 32 * round(side * aspect**power / 32)) for power in (0.5, -0.5))
        kind = "tall" if aspect > 1 else "wide"
        yield (
            f"most images are {kind} (such as {size[0]} x {size[1]}) and are squashed to squares; to keep their shape"
            f" write train: {{fit: pad, image_size: {{height: {height}, width: {width}}}}}"
        )


def decode(table: "Table", data: "DataConfig", framing: "Framing") -> None:
    """Decode the images, unless they are decoded already and intact."""
    from trainers.data import cache

    with counting("reading the decoded images, MB") as count:
        damage = cache.mend(table, data, paths.cache(), framing, progress=count)
    if damage:
        output.print_message(f"the decoded images are damaged, so they are decoded again: {damage}")
    if cost := reading_cost(table, data, framing):
        raw = len(table.rows) * cost.raw_bytes / 1e9
        output.print_message(
            f"the decoded images are kept as JPEG (raw pixels would take {raw:.2f} GB): {slower(table, cost)}"
        )
    with counting("decoding images") as count:
        cache.open_cache(table, data, paths.cache(), framing, progress=count)


@dataclass(frozen=True)
class PreparedStudy:
    """A study whose data, values and networks have passed all checks, before any training."""

    spec: "StudySpec"
    space: Space
    found: "Findings"
    folder: StudyFolder
    slots: tuple[devices.Slot, ...] = ()
    per_device: devices.Count = 1  # trials that share a device; auto: as many as gain speed
    weights: Mapping[str, int] = field(default_factory=dict)  # bytes per backbone, where counted
    plan: HoursPlan | None = None  # for the hours, if they are the only budget
    timed: Sequence[planner.Answer] | None = None  # how fast each recipe trains, if that was timed for the plan

    @property
    def table(self) -> "Table":
        """The data set."""
        return self.found.table

    def other_machine(self, options: Options) -> str:
        """Return a note if more or fewer trials share the CPU than last time, without --slots; otherwise empty."""
        before = (study_file.read(self.folder) or {}).get("slots")
        if options.slots is not None or before in (None, self.per_device):
            return ""
        return f"trials side by side: {self.per_device}, as cores, memory and budget allow; before: {before}"

    @property
    def training_sizes(self) -> tuple[int, int]:
        """The number of images that one training of a trial trains on, and the number it is evaluated on."""
        return training_sizes(self.table, self.spec)

    @cached_property
    def summary(self) -> "Summary":
        """The summary of the data set as it was read."""
        read = self.found.summary(self.spec.data)
        squashed = list(squashed_shapes(self.table, self.space))
        told = (note for note in read.notes if not (self.spec.search.folds and note.startswith(OF_VAL)))
        return read.model_copy(update={"notes": (*told, *squashed)})

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint of the images, labels and splits, computed on first use."""
        from trainers.data import images

        return images.fingerprint(self.table)

    def first_configurations(self, count: int) -> tuple[dict[str, Any], ...]:
        """Return the configurations that trials try before there are any results."""
        from sweeper.search import samplers

        spec = self.spec
        return tuple(samplers.first(spec.search, self.space, count, minimize=spec.minimize))

    @cached_property
    def room(self) -> DiskEstimate:
        """The estimate of its disk space, kept from one attempt to the next."""
        return DiskEstimate(self.folder, self.weights)


def prepare(
    path: Path,
    options: Options,
    *,
    networks: bool = True,
    for_plan: bool = False,
) -> PreparedStudy:
    """Read the file, then check its data, values, networks and GPUs, the cheapest checks first.

    With `for_plan`, weights that the hub does not provide are no error, and networks are also timed in bf16.
    """
    from sweeper.space import yaml_io

    checkpoint_interval()  # raises if it is not a number
    written = yaml_io.read(path, sets=options.assignments)
    homes = devices.slots(options.devices)
    read = presets.filled(written, lambda: _trains_on(options, homes))
    if Path(expanded(read.data.root)).exists():  # otherwise that is the first error
        refuse_absent_weights(read.train)
    folder = StudyFolder.named(read.study)
    found = checked(read.data, folder)
    table = found.table
    refuse_metrics(read, table)
    refuse_unseen(read.train, table)
    refuse_folds(read, table)
    ready, space = _settled(read, table, folder)
    side = side_by_side(options, space, ready.budget.trials, homes)
    slots = homes if side == 1 else devices.slots(options.devices, side)
    weights = _tried(ready, space, table, slots, unfetched=for_plan) if networks else {}
    places = homes if side == "auto" else slots
    plan, timed = timing.planned(ready, space, table, options, places, bf16=for_plan)
    if plan and any(read.of_preset.get(key, value) != value for key, value in plan.values.items()):
        ready, space = _settled(presets.replanned(read, plan.values), table, folder)
    if ready.by_hours and _is_untried(folder, plan):
        ready = replace(ready, budget=ready.budget.model_copy(update={"trials": 0}))
    return PreparedStudy(ready, space, found, folder, tuple(slots), side, weights, plan, timed)


def side_by_side(options: Options, space: Space, trials: int | None, homes: Sequence[devices.Slot]) -> devices.Count:
    """Return how many trials share each of the devices `homes`: as requested with --slots, else one; on a CPU see
    `share_cpu`.
    """
    if options.slots is not None:
        return options.slots
    if options.inline or options.ray is not None or homes[0].device != "cpu":
        return 1
    return min(trials or MOST, share_cpu([recipe.train for recipe in space.recipes()]))


def share_cpu(trains: Sequence["TrainConfig"]) -> int:
    """Return how many trials with these settings train side by side on a CPU, at least one.

    Small networks: one per core, at most MOST, if memory allows; each is faster on a core of its own than sharing all
    cores. If any network is large: one trial with all cores.
    """
    if not all(defaults.is_small(train.backbone) for train in trains):
        return 1
    free = devices.room(devices.slots("cpu"))["cpu"]
    most = max(WORKER_GB + PIXEL_GB * train.batch_size * math.prod(train.input_size) for train in trains)
    return max(1, min(MOST, devices.cores(), MOST if free is None else int(free / most)))


def trains_once(folder: StudyFolder) -> bool:
    """True if an existing study has no time for trials and trains only its first configuration, on train and val."""
    return _is_untried(folder, planner.stored(folder))


def _is_untried(folder: StudyFolder, plan: HoursPlan | None) -> bool:
    return plan is not None and plan.once and not records.results(folder)


def _settled(read: "StudySpec", table: "Table", folder: StudyFolder) -> "tuple[StudySpec, Space]":
    """Return the study with all derived values, and its space; raise if the space needs several framings."""
    names = [category.name for category in table.categories]
    space = Space(read, names)
    if keys := _open(read.data):
        data = settled(read.data, space, table, folder)
        read = replace(read, data=data, derived=tuple(f"data.{key}" for key in keys))
        space = Space(read, names)
    _ = space.framing
    return _capped(read, space), space


def _capped(spec: "StudySpec", space: Space) -> "StudySpec":
    """Return the study with at most as many trials as its grid has configurations."""
    trials, most = spec.budget.trials, space.size
    if spec.search.sampler.name != "grid" or trials is None or most is None or trials <= most:
        return spec
    return replace(spec, budget=spec.budget.model_copy(update={"trials": most}))


def _tried(
    spec: "StudySpec", space: Space, table: "Table", slots: Sequence[devices.Slot], *, unfetched: bool
) -> Mapping[str, int]:
    """Build every network and try the user's own code; return the bytes of each backbone's weights."""
    from sweeper.search import samplers

    files = [file.path for file in spec.extensions]
    weights = preflight.preflight(
        space.recipes(smallest="batch_size"),
        table.categories,
        cache=paths.cache(),
        images=training_sizes(table, spec)[0],
        gpus=devices.ids(slots),
        place=space.place,
        unfetched=unfetched,
        extensions=files,
        weights=spec.rules.weights,
    )
    samplers.try_own(spec.search, space, minimize=spec.minimize)
    preflight.dry_run(space.dry_runs(), files)
    return weights
