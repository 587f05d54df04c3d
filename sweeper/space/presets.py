"""The table of presets: backbone, resolution, epochs, batch size and augmentation by kind of device."""

from typing import Literal, NamedTuple, get_args

from sweeper.space.defaults import AUGMENT

Name = Literal["fast", "good", "best"]
Kind = Literal["cpu", "gpu"]
NAMES: tuple[Name, ...] = get_args(Name)


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
