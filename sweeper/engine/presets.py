"""The table of presets, by kind of device, and which of them the time has room for."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from sweeper.space.defaults import AUGMENT

Name = Literal["fast", "good", "best"]
Kind = Literal["cpu", "gpu"]
NAMES: tuple[Name, ...] = get_args(Name)
WANTED, HANDFUL = 8, 4  # trials that a search should have room for, and that it must have
SMALLEST = 64  # pixels that images are shrunk to for want of time
TRIAL_S = 5.0  # seconds of a trial beside its epochs
MARGIN = 1.2  # of time: steps on noise are a little faster than real ones


class Preset(NamedTuple):
    """One line of the table. Of the backbones, all with published weights, the first is the one to begin with."""

    backbones: tuple[str, ...]
    image_size: int
    epochs: int
    batch_size: int
    augment: str  # a key of AUGMENT


# fmt: off
TABLE: dict[Kind, dict[Name, Preset]] = {
    "cpu": {
        "fast": Preset(("mobilenetv3_small_100.lamb_in1k",), 96, 4, 32, "light"),
        "good": Preset(("mobilenetv3_large_100.ra_in1k", "mobilenetv3_small_100.lamb_in1k"), 128, 8, 32, "medium"),
        "best": Preset(("efficientnet_b0.ra_in1k", "mobilenetv3_large_100.ra_in1k"), 192, 15, 32, "medium"),
    },
    "gpu": {
        "fast": Preset(("resnet18.a1_in1k",), 160, 6, 64, "light"),
        "good": Preset(("convnext_tiny.fb_in1k", "resnet50.a1_in1k"), 224, 12, 64, "medium"),
        "best": Preset(("convnext_small.fb_in22k_ft_in1k", "convnext_tiny.fb_in1k"), 288, 20, 64, "medium"),
    },
}
# fmt: on


def kind(device: str) -> Kind:
    """The column of the table for a device as torch names it."""
    return "cpu" if device == "cpu" else "gpu"


def backbones(kind: Kind) -> list[str]:
    """All of one kind of device, those of the fastest preset first."""
    return list(dict.fromkeys(name for preset in NAMES for name in TABLE[kind][preset].backbones))


def augmentation(preset: Preset) -> dict[str, object]:
    """The preset's augmentation, as `train.augment` has it."""
    return AUGMENT[preset.augment]


# ----------------------------------------------------------------------------------------- choosing
class Chosen(NamedTuple):
    """What fits the time: backbones, and the preset whose other values are taken, perhaps with fewer pixels."""

    backbones: Sequence[str]
    preset: Preset
    trials: float


class Pace(NamedTuple):
    """Images a second of each backbone in training and in evaluation, at a size; how many there are of each."""

    measured: Mapping[str, tuple[float, float, int]]
    train: int
    val: int

    def epoch(self, backbone: str, size: int) -> float:
        """Seconds of an epoch at an image size."""
        train, val, at = self.measured[backbone]
        return MARGIN * (self.train / train + self.val / val) * (size / at) ** 2

    def fitting(self, backbones: Sequence[str], size: int, epochs: int, seconds: float) -> float:
        """How many trials fit."""
        mean = sum(self.epoch(name, size) for name in backbones) / len(backbones)
        return seconds / (TRIAL_S + epochs * mean)


def choose(
    table: Mapping[Name, Preset], candidates: Sequence[Mapping[str, Any]], pace: Pace, seconds: float
) -> Chosen:
    """The best preset of which enough trials fit; else the quickest backbone with fewer epochs and pixels."""
    names = [one["name"] for one in candidates]
    fixed = candidates[0]["input_size"] if candidates[0]["fixed_size"] else None
    for name in reversed(NAMES):
        preset = table[name]._replace(image_size=fixed or table[name].image_size)
        here = [one for one in preset.backbones if one in names] or _foreign(table, names)
        if here and (fits := pace.fitting(here, preset.image_size, preset.epochs, seconds)) >= WANTED:
            return Chosen(here, preset, fits)
    fast = table["fast"]._replace(image_size=fixed or table["fast"].image_size)
    quickest = min(names, key=lambda one: pace.epoch(one, fast.image_size))
    smaller = [
        Chosen([quickest], shrunk, pace.fitting([quickest], shrunk.image_size, shrunk.epochs, seconds))
        for size in (fast.image_size, fixed or SMALLEST)
        for epochs in range(fast.epochs, 1, -1)
        for shrunk in [fast._replace(image_size=size, epochs=epochs)]
    ]
    return next((one for one in smaller if one.trials >= HANDFUL), smaller[-1])


def _foreign(table: Mapping[Name, Preset], names: Sequence[str]) -> list[str]:
    """Those that no preset names: of a folder of weights."""
    known = {name for preset in table.values() for name in preset.backbones}
    return [name for name in names if name not in known]
