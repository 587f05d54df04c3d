"""The table of presets by kind of device: the values they fill in, and the choice of the one that fits the time."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, get_args

from sweeper.space import defaults
from sweeper.space.defaults import AUGMENT
from sweeper.space.spec import Preset as Name
from sweeper.space.spec import StudySpec
from sweeper.space.tree import flow, leaf
from sweeper.store import study_file
from sweeper.store.paths import StudyFolder
from sweeper.study import planner
from sweeper.study.planner import LEAST, MARGIN, WANTED
from sweeper.study.planner import TRIAL_S as TRIAL_S

Kind = Literal["cpu", "gpu"]
NAMES: tuple[Name, ...] = get_args(Name)
FAMILY = "family"
SHORTENED = 0.3  # a preset is chosen if trainings of this share of its cost fit: about the cost of the one below it


class Preset(NamedTuple):
    """One line of the table. All backbones have published weights; the first is the default."""

    backbones: tuple[str, ...]
    image_size: int
    epochs: int
    batch_size: int
    augment: str  # a key of AUGMENT, or family: the default of the backbone's family


# fmt: off
TABLE: dict[Kind, dict[Name, Preset]] = {
    "cpu": {
        "fast": Preset(("mobilenetv3_small_100.lamb_in1k",), 96, 4, 32, "light"),
        "good": Preset(("mobilenetv3_large_100.ra_in1k", "mobilenetv3_small_100.lamb_in1k"), 128, 10, 32, "family"),
        "best": Preset(("efficientnet_b0.ra_in1k", "mobilenetv3_large_100.ra_in1k"), 192, 15, 32, "family"),
    },
    "gpu": {
        "fast": Preset(("resnet18.a1_in1k",), 160, 6, 64, "light"),
        "good": Preset(("convnext_tiny.fb_in1k", "resnet50.a1_in1k"), 224, 12, 64, "family"),
        "best": Preset(("convnext_small.fb_in22k_ft_in1k", "convnext_tiny.fb_in1k"), 288, 20, 64, "family"),
    },
}
# fmt: on


def kind(device: str) -> Kind:
    """Return the column of the table for a torch device name."""
    return "cpu" if device == "cpu" else "gpu"


def backbones(kind: Kind) -> list[str]:
    """Return all backbones for one kind of device, those of the fastest preset first."""
    return list(dict.fromkeys(name for preset in NAMES for name in TABLE[kind][preset].backbones))


def augmentation(preset: Preset, backbone: str, *, pretrained: bool = True) -> dict[str, object]:
    """Return the value of `train.augment` for a backbone, suited to the shortest training planned with a preset."""
    line = defaults.family(backbone, pretrained=pretrained)
    return defaults.augmentation(line.augment if preset.augment == FAMILY else preset.augment, preset.epochs // LEAST)


# ------------------------------------------------------------------------------------------ filling
def filled(spec: StudySpec, device: Callable[[], str]) -> StudySpec:
    """Return the study with the values that its `train` leaves out, from its preset.

    Without a preset, `good` is used for a study without a backbone, and `best` for one with a backbone and only hours
    as its budget, from which a planner takes as much as fits. Any other study stays as it is. An existing study keeps
    the values of the kind of device that it started on, and those planned for it.
    """
    entries = spec.train.value if isinstance(spec.train.value, dict) else {}
    name = spec.preset or ("best" if "backbone" in entries else "good")
    plan = planner.stored(StudyFolder.named(spec.study))
    planned = plan.values if plan else {}
    whole = {one: {**_values(one, name), **planned} for one in TABLE}
    missing = {one: {key: value for key, value in of.items() if key not in entries} for one, of in whole.items()}
    began = _began_on(spec, missing)
    if spec.preset is None and "backbone" in entries and not (began or _will_be_planned(spec)):
        return spec
    return _with(replace(spec, preset=name), missing[began or kind(device())])


def _will_be_planned(spec: StudySpec) -> bool:
    """True for a new study whose only budget is hours."""
    return spec.by_hours and study_file.read(StudyFolder.named(spec.study)) is None


def replanned(spec: StudySpec, values: Mapping[str, Any]) -> StudySpec:
    """Return the study with `values` in place of those that its preset gave."""
    return _with(spec, {**spec.of_preset, **values})


def _with(spec: StudySpec, values: Mapping[str, Any]) -> StudySpec:
    """Return the study with `values` of a preset."""
    entries = spec.train.value if isinstance(spec.train.value, dict) else {}
    train = replace(spec.train, value={**entries, **{key: leaf(value) for key, value in values.items()}})
    return replace(spec, of_preset=values, train=train)


def summary_line(spec: StudySpec) -> str:
    """Return a line with the values that a preset gave; empty if there are none."""
    values = [f"{key} {flow(value)}" for key, value in spec.of_preset.items() if key != "augment"]
    return f"preset {spec.preset}: {', '.join(values)}" if values else ""


def _values(kind: Kind, name: Name) -> dict[str, Any]:
    """Return the values of a preset in the form of `train`, with its first backbone."""
    one = TABLE[kind][name]
    sizes = {"image_size": one.image_size, "epochs": one.epochs, "batch_size": one.batch_size}
    own = {} if one.augment == FAMILY else {"augment": AUGMENT[one.augment]}
    return {"backbone": one.backbones[0], **sizes, **own}


def _began_on(spec: StudySpec, values: Mapping[Kind, Mapping[str, Any]]) -> Kind | None:
    """Return the kind of device whose values an existing study has; None for any other study."""
    before = study_file.read(StudyFolder.named(spec.study))
    if before is None:
        return None
    began = before["identity"]["train"]
    given = {kind: {key: value for key, value in of.items() if key != "augment"} for kind, of in values.items()}
    return next((kind for kind, of in given.items() if of and of.items() <= began.items()), None)


# ----------------------------------------------------------------------------------------- choosing
class Chosen(NamedTuple):
    """The choice that fits the time: a preset by name, its values, and backbones."""

    backbones: Sequence[str]
    name: Name
    preset: Preset


class Pace(NamedTuple):
    """Images per second of each backbone in training and in evaluation, with their size; and the number of images."""

    measured: Mapping[str, tuple[float, float, int]]
    train: int
    val: int
    slots: int = 1  # trainings side by side at this pace

    def epoch(self, backbone: str, size: int) -> float:
        """Return the seconds per epoch at an image size."""
        train, val, at = self.measured[backbone]
        return MARGIN * (self.train / train + self.val / val) * (size / at) ** 2

    def needed(self, backbones: Sequence[str], preset: Preset) -> float:
        """Return the seconds of WANTED shortened trials on the slots, and of the retraining on train and val."""
        epoch = sum(self.epoch(name, preset.image_size) for name in backbones) / len(backbones)
        trial = TRIAL_S + SHORTENED * preset.epochs * epoch
        return trial * (math.ceil(WANTED / self.slots) + (self.train + self.val) / self.train)


def choose(
    table: Mapping[Name, Preset], candidates: Sequence[Mapping[str, Any]], pace: Pace, seconds: float
) -> Chosen:
    """Return the best preset of which enough shortened trials fit, else `fast` with the fastest backbone."""
    names = [one["name"] for one in candidates]
    fixed = candidates[0]["input_size"] if candidates[0]["fixed_size"] else None
    sized = {name: preset._replace(image_size=fixed or preset.image_size) for name, preset in table.items()}
    for name in reversed(NAMES):
        preset = sized[name]
        here = [one for one in preset.backbones if one in names] or _foreign(table, names)
        if here and pace.needed(here, preset) <= seconds:
            return Chosen(here, name, preset)
    fast = sized["fast"]
    return Chosen([min(names, key=lambda one: pace.epoch(one, fast.image_size))], "fast", fast)


def _foreign(table: Mapping[Name, Preset], names: Sequence[str]) -> list[str]:
    """Return the names that are in no preset, as from a folder of weights."""
    known = {name for preset in table.values() for name in preset.backbones}
    return [name for name in names if name not in known]
