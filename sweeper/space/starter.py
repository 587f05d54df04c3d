"""The search space that `sweep init` writes: short, commented, ready to run."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sweeper.space import defaults
from sweeper.space.tree import flow
from trainers.data_config import DataConfig

MARK = "# Written by sweep init (checksum "
RATES = 5  # factor from the family's learning rate to the lowest and the highest one


@dataclass(frozen=True)
class Starter:
    """The facts that a first search space needs."""

    study: str
    data: DataConfig
    metric: str
    hours: float
    backbones: Sequence[str]
    pretrained: bool
    weights: str | None
    preset: str
    image_size: int | None  # set if the backbone takes no other
    batch_size: int
    augment: dict[str, Any]
    several: bool  # an image may have several answers in a category
    notes: Sequence[str]  # what was measured


def text(starter: Starter, schema: str) -> str:
    """Return the YAML; `schema` is the path of the schema for editors, relative to the file."""
    body = "".join(f"{line}\n" for line in _lines(starter))
    return f"# yaml-language-server: $schema={schema}\n{MARK}{_checksum(body)}); edit it freely.\n{body}"


def is_unchanged(written: str) -> bool:
    """True if a file is as `sweep init` wrote it."""
    _, _, rest = written.partition("\n")
    mark, _, body = rest.partition("\n")
    return mark.startswith(f"{MARK}{_checksum(body)})")


def is_starter(written: str) -> bool:
    """True if `sweep init` wrote a file, edited since or not."""
    return written.partition("\n")[2].startswith(MARK)


def notes(written: str) -> list[str]:
    """Return the comments at the top, about what was measured."""
    lines = written.splitlines()[2:]
    return lines[: next((at for at, line in enumerate(lines) if not line.startswith("#")), 0)]


def _checksum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:12]


def _lines(one: Starter) -> list[str]:
    data = one.data.model_dump(mode="json", exclude_defaults=True)
    data = {"layout": one.data.layout, "root": one.data.root} | data
    return [
        *(f"# {note}" for note in one.notes),
        f"study: {flow(one.study)}",
        f"data: {flow(data)}",
        f"metric: {one.metric}  # on val; docs/reference/keys.md lists the others",
        f"budget: {flow({'hours': one.hours})}  # wall-clock time, retraining included",
        f"preset: {one.preset}  # its image_size and epochs, or less if the hours are few; set in train, they stay",
        "keep_checkpoints: 3  # of the best trials; the others keep predictions and figures",
        "train:",
        *(f"  {line}" for line in _train(one)),
    ]


def _train(one: Starter) -> list[str]:
    family = defaults.family(one.backbones[0], pretrained=one.pretrained)
    rates = {"backbone_lr_scale": family.backbone_lr_scale, "layer_decay": family.layer_decay}
    optimizer = {
        "name": "adamw",
        "lr": {"loguniform": [_short(family.lr / RATES), _short(family.lr * RATES)]},
        **(rates if one.pretrained else {}),
        "weight_decay": family.weight_decay,
    }
    several = len(one.backbones) > 1
    return [
        f"backbone: {flow({'choice': list(one.backbones)} if several else one.backbones[0])}",
        *([] if one.pretrained else ["pretrained: false  # random weights; published ones need far fewer images"]),
        *([f"weights: {flow(one.weights)}"] if one.weights else []),
        *([f"image_size: {one.image_size}  # the backbone takes no other"] if one.image_size else []),
        f"batch_size: {one.batch_size}",
        f"optimizer: {flow(optimizer)}",
        "loss:",
        "  choice:",
        *(f"    - {flow(loss)}" for loss in _losses(one)),
        f"augment: {flow(_augment(one.augment))}  # 0.3: strong crops, 0.9: hardly any",
    ]


def _losses(one: Starter) -> list[dict[str, Any]]:
    """Return losses that suit the metric: for a mean over classes, one that gives rare classes more weight."""
    focal = {"name": "focal", "gamma": {"uniform": [0.5, 3.0]}}
    if one.several:
        return [{"name": "cross_entropy"}, {"name": "asymmetric", "gamma_negative": {"uniform": [1.0, 4.0]}}]
    plain = {"name": "cross_entropy", "label_smoothing": {"uniform": [0.0, 0.2]}}
    if one.metric == "overall_accuracy":
        return [plain, focal]
    return [plain, {"name": "logit_adjusted", "tau": {"uniform": [0.25, 1.25]}}, focal]


def _augment(given: dict[str, Any]) -> dict[str, Any]:
    """Return the preset's augmentation, with the strength of its crops left open."""
    plain = {key: value for key, value in given.items() if key != "random_shift"}
    return plain | {"random_resized_crop": {"scale": [{"uniform": [0.3, 0.9]}, 1.0]}}


def _short(value: float) -> float:
    return float(f"{value:.2g}")
