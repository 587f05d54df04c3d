"""`sweep init`: write a search space for a folder or a table, chosen by measurements on this machine."""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper import text
from sweeper.commands import data
from sweeper.commands.backbones import refuse_no_folder
from sweeper.engine import backbones, prepare, presets, timing
from sweeper.engine.options import Options
from sweeper.engine.presets import Chosen, Pace, Preset
from sweeper.errors import DataError, EnvironmentFault, UserError
from sweeper.space import docs, hints, starter, yaml_io
from sweeper.space.space import Space
from sweeper.space.starter import Starter
from sweeper.space.tree import Node, flow
from sweeper.space.validation import known_metric
from sweeper.store import paths, study_file
from sweeper.store.paths import StudyFolder
from sweeper.system import devices
from sweeper.terminal import output
from trainers.config import Recipe, TrainConfig
from trainers.data_config import DataConfig
from trainers.metrics.definitions import lacking
from trainers.support import weights_folder

if TYPE_CHECKING:
    from trainers.data.layouts import Table

CANDIDATES = 3  # backbones to measure from a folder of weights
NAMELESS = ("labels", "annotations", "metadata", "meta", "data", "dataset", "images", "train", "all")
"""Names of tables that say nothing about their content; the folder's name is used instead."""
BELONGS = ("study.json", "history.jsonl", "mlflow.db")
"""Files that mark a folder as written by sweep itself."""


@dataclass(frozen=True)
class Wishes:
    """The options of `sweep init` besides the path."""

    metric: str | None = None
    hours: float = 1.0
    weights: str | None = None
    scratch: bool = False
    devices: str | None = None
    sets: tuple[str, ...] = ()  # data.KEY=VALUE only


def write(path: Path, wishes: Wishes, out: Path | None = None, *, summarize: bool = True) -> Path:
    """Write the search space for the data set at `path` and return the path of the new file.

    With `summarize`, the data set is printed in a few lines.
    Raises UserError if the file already exists or cannot be written, DataError if the data set has faults, and
    EnvironmentFault if there are no weights to start from.
    """
    target = out or target_for(path)
    _refuse_existing(target, path)
    _refuse_our_own(path)
    refuse_no_folder(wishes.weights)
    made = _starter(path, target, wishes, summarize=summarize)
    document = starter.text(made, _schema(target))
    Space(yaml_io.read(target, text=document), [])  # validate before writing: every file that is written can be run
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as file:
            file.write(document)
    except OSError as error:
        advice = "choose another file with --out"
        raise UserError(f"cannot be written: {error.strerror}", where=str(target), help=advice) from None
    return target


def ending(written: Path) -> Iterator[str]:
    """Yield the path that was written, its notes, and the next command."""
    yield f"written: {text.relative_path(written)}"
    yield from (f"  {line.removeprefix('# ')}" for line in starter.notes(written.read_text(encoding="utf-8")))
    name = shlex.quote(str(written))
    yield f"next:    sweep run {name}"
    yield f"         sweep plan {name} shows what it would try and what that would cost"


def target_for(path: Path) -> Path:
    """Return the search space file for the data set at `path`, in the current folder."""
    whole = path.resolve()
    stem = whole.stem if path.suffix and not path.is_dir() else whole.name
    name = hints.name(whole.parent.name if stem.lower() in NAMELESS and not path.is_dir() else stem)
    if not name:
        raise UserError(
            "its name cannot be turned into a study name", where=str(path), help="choose a file name with --out"
        )
    return Path(f"{name}.yaml")


def resolved(path: Path, options: Options, weights: str | None) -> tuple[Path, Options]:
    """Return the search space to run or plan, written first for a data set, and the options with these weights."""
    if data.is_data(path):
        return for_run(path, options, weights), options
    return path, with_weights(path, options, weights) if weights else options


def for_run(path: Path, options: Options, weights: str | None) -> Path:
    """Return the search space for a data set given to `sweep run`: the one written before, or a new one."""
    target = target_for(path)
    wanted = tuple(one for one in options.sets if one.startswith("data."))
    if target.exists():
        if not _is_of(target, data.asked(path, wanted)):
            raise UserError(
                f"{target} already exists, but was not written for {path}, or was edited since",
                where=str(target),
                help=f"sweep run {shlex.quote(str(target))} runs it; sweep init {shlex.quote(str(path))} --out"
                " OTHER.yaml writes another",
            )
        output.print_message(f"search space: {target} (written earlier)")
        return target
    hours = Wishes.hours if options.hours is None else options.hours
    written = write(
        path, Wishes(hours=hours, weights=weights, devices=options.devices, sets=wanted), target, summarize=False
    )
    output.print_message(f"search space: {written}")
    return written


def _is_of(target: Path, wanted: DataConfig) -> bool:
    """True if a file was written for this data set and has not been edited since."""
    try:
        written = target.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return starter.is_unchanged(written) and yaml_io.read(target, text=written).data == wanted


def with_weights(path: Path, options: Options, weights: str) -> Options:
    """Return `options` with the folder `weights` added, if the search space is pretrained and sets no weights."""
    refuse_no_folder(weights)
    spec = yaml_io.read(path, sets=options.assignments)
    entries: Mapping[str, Any] = spec.train.value if isinstance(spec.train.value, dict) else {}
    scratch = "pretrained" in entries and entries["pretrained"].value is False
    if "weights" in entries and Path(str(entries["weights"].value)).absolute() != Path(weights).absolute():
        output.print_message(f"{path} sets its own weights, so those in {weights} are not used")
    if "weights" in entries or scratch:
        return options
    before = study_file.read(StudyFolder.named(spec.study))
    if before and not before["identity"]["train"].get("weights"):
        output.print_message(f"study {spec.study} started with the hub's weights, so those in {weights} are not used")
        return options
    return replace(options, sets=(*options.sets, f"train.weights={flow(weights)}"))


def _schema(target: Path) -> str:
    """Write the schema for editors and return its path relative to the search space file."""
    place = paths.home() / "schema.json"
    docs.write(place)
    return Path(os.path.relpath(place, target.absolute().parent)).as_posix()


# ----------------------------------------------------------------------------------------- refusing
def _refuse_existing(target: Path, path: Path) -> None:
    if target.exists() or target.is_symlink():
        again = f"sweep init {shlex.quote(str(path))} --out OTHER.yaml"
        advice = f"sweep run {shlex.quote(str(target))} runs it; {again} writes another"
        raise UserError("already exists and is not overwritten", where=str(target), help=advice)


def _refuse_our_own(path: Path) -> None:
    """Raise UserError for the folder of a study or a trial, and for mlruns and everything in it."""
    ours = paths.home().resolve()
    if ours in (path.resolve(), *path.resolve().parents) or any((path / name).exists() for name in BELONGS):
        what = "is a folder that sweep wrote, not a data set"
        raise UserError(what, where=str(path), help="give the folder of the images; `sweep` shows the studies here")


def _metric(asked: str | None, table: "Table") -> str:
    """Return the requested metric, or the first usual one that the data set supports."""
    absent = lacking([category.multi for category in table.categories])
    usual = ("overall_accuracy", "mean_average_precision")
    if asked is None:
        return next(one for one in usual if one not in absent)
    known_metric("metric", Node(asked, "--metric"))
    if asked in absent:
        there = text.join_or([one for one in usual if one not in absent])
        what = f"{asked} needs a kind of category that this data set does not have"
        raise UserError(what, where="--metric", help=f"try {there}")
    return asked


# ---------------------------------------------------------------------------------------- proposal
def _starter(path: Path, target: Path, wishes: Wishes, *, summarize: bool) -> Starter:
    if strange := next((one for one in wishes.sets if not one.startswith("data.")), None):
        advice = "set only data.KEY=VALUE here; change other values in the file"
        raise UserError("init chooses this value itself", where=f"--set {strange}", help=advice)
    config = data.asked(path, wishes.sets)
    checked = data.run(path, wishes.sets)
    for line in prepare.understood(checked.summary, str(path)) if summarize else ():
        output.print_message(line)
    if checked.found.faults:
        faults = checked.found.faults
        first = f"{faults[0].help}; " if len(faults) == 1 and faults[0].help else ""
        raise DataError(faults, help=f"{first}{data.ON_COMMAND_LINE}" if config.layout == "table" else "")
    table = checked.found.table
    metric = _metric(wishes.metric, table)
    home = devices.slots(wishes.devices)[0]
    column = presets.kind(home.device)
    candidates = _candidates(column, wishes, path)
    pace = _pace(candidates, presets.TABLE[column]["fast"], table, wishes.devices)
    chosen = presets.choose(presets.TABLE[column], candidates, pace, wishes.hours * 3600)
    local = wishes.weights if wishes.weights and not wishes.scratch else None
    return Starter(
        study=_study(target),
        data=config,
        metric=metric,
        hours=wishes.hours,
        backbones=chosen.backbones,
        pretrained=not wishes.scratch,
        weights=local,
        preset=chosen.name,
        image_size=chosen.preset.image_size if candidates[0]["fixed_size"] else None,
        batch_size=min(chosen.preset.batch_size, max(8, pace.train // 8)),
        augment=dict(presets.augmentation(chosen.preset, chosen.backbones[0], pretrained=not wishes.scratch)),
        several=any(category.multi for category in table.categories),
        notes=list(_notes(chosen, pace, home.name)),
    )


def _study(target: Path) -> str:
    if name := hints.name(target.stem):
        return name
    raise UserError(
        "its name cannot be turned into a study name", where=str(target), help="choose another file name with --out"
    )


def _notes(chosen: Chosen, pace: Pace, device: str) -> Iterator[str]:
    size = chosen.preset.image_size
    side = f", {pace.slots} side by side" if pace.slots > 1 else ""
    for name in chosen.backbones:
        seconds = text.format_duration(pace.epoch(name, size))
        yield f"Measured on {device}: {name} at {size} px, about {seconds} per epoch{side}."


def _pace(candidates: Sequence[Mapping[str, Any]], fast: Preset, table: "Table", wanted: str | None) -> Pace:
    """Measure each candidate over a few random batches, on as many slots as a study of them would have."""
    sizes = [one["input_size"] if one["fixed_size"] else fast.image_size for one in candidates]
    recipes = [
        Recipe(
            data=DataConfig(root="."),
            train=TrainConfig(backbone=one["name"], pretrained=False, image_size=size, batch_size=fast.batch_size),
        )
        for one, size in zip(candidates, sizes, strict=True)
    ]
    homes = devices.slots(wanted)
    side = prepare.share_cpu([recipe.train for recipe in recipes]) if homes[0].device == "cpu" else 1
    slots = devices.slots(wanted, side)
    answers = timing.measure(recipes, table.categories, slots)
    measured = {
        one["name"]: (answer["train_images_per_second"], answer["val_images_per_second"], size)
        for one, size, answer in zip(candidates, sizes, answers, strict=True)
    }
    train, val = (len(table.split(split)) for split in ("train", "val"))
    return Pace(measured, train, val, len(slots))


# ------------------------------------------------------------------------------------------ weights
def _candidates(column: presets.Kind, wishes: Wishes, path: Path) -> list[dict[str, Any]]:
    """Return the backbones to choose from that have weights here. Raises EnvironmentFault if there are none."""
    usual = presets.backbones(column)
    if wishes.scratch:
        return backbones.find(names=usual).backbones
    if wishes.weights:
        return _of_folder(column, wishes.weights)
    found = backbones.find(names=usual, fetch=usual[:1]).backbones  # the smallest shows if the hub is reachable
    missing = next((one["missing"] for one in found if one["missing"]), "")
    if not missing:
        return found
    if cached := [one for one in found if one["weights"] == "cached"]:
        return cached
    again = f"sweep init {shlex.quote(str(path))}"
    raise EnvironmentFault(
        f"there are no weights to start from: the model hub did not provide them ({missing})",
        where=usual[0],
        help=f"give a folder of weights with --weights DIR or SWEEP_WEIGHTS, or run {again} --scratch to train from"
        " random weights",
    )


def _of_folder(column: presets.Kind, weights: str) -> list[dict[str, Any]]:
    """Return a few backbones of a folder, the smallest for a CPU, the largest for a GPU.

    Backbones that take any image size have priority.
    """
    there = weights_folder.names(weights)
    found = [one for one in backbones.find(names=there, weights=weights).backbones if one["weights"] == "local"]
    if not found:
        raise EnvironmentFault(
            f"no file or folder here is named after a timm backbone; it has {', '.join(there[:6])}",
            where=weights,
            help="name each file <backbone>.safetensors; sweep backbones PATTERN lists timm's names",
        )
    found.sort(key=lambda one: one["macs"] or one["parameters"] or 0, reverse=column == "gpu")
    free = [one for one in found if not one["fixed_size"]]
    return free[:CANDIDATES] or found[:1]
