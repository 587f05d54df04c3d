"""The start of a search: the values that a recipe gets for keys that it leaves out."""

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from sweeper.space.tree import Choice, Node, Range, plain
from sweeper.space.tree import parameters as opened
from trainers import extensions
from trainers.config import NAMED, TrainConfig
from trainers.metrics.definitions import STANDARD
from trainers.signatures import Kind
from trainers.support import weights_folder
from trainers.support.weights_folder import ModelConfig

COSTS = ("epochs", "batch_size", "image_size")  # depend on the data and the machine: a search starts in their middle


def parameters(tree: Node, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a first trial: the `defaults` of its backbone, where the tree offers them.

    From a range take the nearest value, from a choice the option itself or the nearest number. Without a default,
    take the middle of the range or the first option.
    """
    usual = known(tree, defaults)
    found: dict[str, Any] = {}
    for each in opened(tree):
        if all(found.get(name) == label for name, label in each.given.items()):
            found[each.name] = usual.get(each.name, each.distribution.midpoint())
    return found


def known(tree: Node, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same for every parameter that has a default, including those of all branches."""
    usual = TrainConfig.model_validate(defaults).model_dump(mode="json")
    usual["drop_path"] = usual["drop_path"] or 0.0  # left out means none
    return dict(_walk(tree, "", "", {key: value for key, value in usual.items() if key not in COSTS}))


def _walk(node: Node, name: str, part: str, usual: Any) -> Iterator[tuple[str, Any]]:
    """Yield name and default of each parameter that has one, in a node of the part `part` with default `usual`."""
    match node.value:
        case dict() as entries:
            known = _defaults(part, entries, usual)
            for key, child in entries.items():
                yield from _walk(child, f"{name}.{key}" if name else key, part or key, known.get(key))
        case list() as items:
            for index, child in enumerate(items):
                of_item = usual[index] if isinstance(usual, list) and index < len(usual) else None
                yield from _walk(child, f"{name}.{index}", part, of_item)
        case Choice() as distribution:
            yield from ((name, label) for label in _option(distribution, usual))
            for label, child in _options(distribution):
                yield from _walk(child, f"{name}.{label}", part, usual)
        case Range() as distribution if _number(usual):
            yield name, distribution.near(usual)


def _defaults(part: str, entries: Mapping[Any, Node], usual: Any) -> Mapping[str, Any]:
    """Return the defaults of a mapping: those of its own name, if that is not the usual one."""
    label = entries["name"].value if part in NAMED and "name" in entries else None
    if isinstance(label, str) and not (isinstance(usual, dict) and usual.get("name") == label):
        of_name = TrainConfig.model_validate({"backbone": "", part: _of_extension(part, label) | {"name": label}})
        defaults: dict[str, Any] = of_name.model_dump(mode="json")[part]
        return defaults
    return usual if isinstance(usual, dict) else {}


def _of_extension(part: str, name: str) -> dict[str, Any]:
    """Return the defaults of a part that an extension file defines."""
    kinds: dict[str, Kind] = {"loss": "losses", "head": "heads"}
    definition = extensions.find(kinds[part], name) if part in kinds else None
    return definition.defaults if definition else {}


def _option(distribution: Choice, usual: Any) -> Iterator[Any]:
    """Yield the label of the default, if it is offered, or else that of the nearest number."""
    if isinstance(usual, dict) and "name" not in usual:
        yield from islice((label for label, node in _options(distribution) if isinstance(node.value, dict)), 1)
        return
    wanted = usual.get("name") if isinstance(usual, dict) else usual
    for label, node in _options(distribution):
        named = node.value.get("name") if isinstance(node.value, dict) else None
        found = named.value if named else plain(node)
        if wanted is not None and wanted == found and _number(wanted) == _number(found):
            yield label
            return
    numbers = [label for label in distribution.labels if isinstance(label, int | float)]
    if isinstance(wanted, int | float) and len(numbers) == len(distribution.labels):
        target = float(wanted)
        yield min(numbers, key=lambda label: abs(label - target))


def _options(distribution: Choice) -> Iterator[tuple[Any, Node]]:
    yield from zip(distribution.labels, distribution.nodes, strict=True)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class Family(NamedTuple):
    """A line of the table; rates are for AdamW at 64 images per step."""

    pattern: str  # matches the architecture, the part of backbone before the dot
    lr: float
    backbone_lr_scale: float
    layer_decay: float
    weight_decay: float
    drop_path: float | None
    augment: str  # a key of AUGMENT
    source: str


AUGMENT: dict[str, dict[str, Any]] = {
    "light": {"horizontal_flip": 0.5, "random_shift": 0.125},
    "medium": {
        "horizontal_flip": 0.5,
        "random_resized_crop": {"scale": [0.5, 1.0]},
        "color_jitter": {"brightness": 0.2, "contrast": 0.2},
    },
    "strong": {
        "horizontal_flip": 0.5,
        "random_resized_crop": {"scale": [0.35, 1.0]},
        "color_jitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2},
        "mixup": 0.2,
    },
}


LONG = 10  # epochs from which small networks get strong augmentation: see docs/explanation/recipe-parts.md


# fmt: off
TABLE = (
    #      architectures                                     lr   backbone layer  decay  drop path  augment
    Family(r"(mobilenet|mnasnet|(tf_)?efficientnet_(b0|lite)|test_)", 2e-3, 1.0, 0.9, 0.05, None, "strong",
           "measured on photographs with MobileNetV2, see docs/explanation/recipe-parts.md"),
    Family(r"(tf_)?efficientnet", 1e-3, 0.5, 1.0, 0.02, None, "medium",
           "Tan and Le 2021, section 5.2: fine-tuning at a low rate; timm's recipes for decay"),
    Family(r"convnext", 1e-3, 0.3, 0.87, 0.05, 0.1, "medium",
           "Liu et al. 2022, table 5: layer decay 0.7 to 0.9 over 12 layers, 0.87 over timm's; drop path 0.1 and up"),
    Family(r"swin", 5e-4, 0.3, 0.9, 0.05, 0.2, "medium",
           "Liu et al. 2021, appendix A2.1: fine-tuning at a constant low rate, drop path 0.2"),
    Family(r"(vit|deit|beit|eva|cait)", 5e-4, 0.5, 0.75, 0.05, 0.1, "medium",
           "He et al. 2022, table 9: layer decay 0.65 to 0.75, drop path 0.1, decay 0.05"),
    Family(r"van", 5e-4, 0.3, 1.0, 0.05, 0.1, "medium",
           "Guo et al. 2022, section 4: AdamW 5e-4, decay 0.05, drop path 0.1"),
    Family(r"", 1e-3, 0.3, 1.0, 0.02, None, "medium",
           "ResNets and everything else: Wightman et al. 2021, section 5.2: decay 0.02, smoothing 0.1"),
)


SCRATCH = Family(r"", 2e-3, 1.0, 1.0, 0.05, None, "light", "from random weights: one rate for all layers")


# fmt: on
SCALES = [1.0, 1.15]  # magnifications of test-time augmentation, measured: see docs/explanation/recipe-parts.md


PARTS = (
    "loss",
    "optimizer",
    "schedule",
    "augment",
    "weight_averaging",
    "drop_path",
    "tta",
    "posthoc_logit_adjustment",
)
"""Keys that a recipe may leave out to get the values of the backbone's family."""
MIXING = ("mixup", "cutmix")  # the keys of `augment` that mix images
OF_WEIGHTS = ("backbone_args", "normalize")
"""Keys that it may leave out to get those of timm's config.json beside its local weights."""


def family(backbone: str, *, pretrained: bool = True) -> Family:
    """Return the line of the table for a timm model name; the first match wins."""
    if not pretrained:
        return SCRATCH
    return next(line for line in TABLE if re.match(line.pattern, backbone))


def is_small(backbone: str) -> bool:
    """True if the network of this timm name is small, so that several threads hardly train it any faster.

    False for timm's test_ networks: people try out studies with them, and the same trials each time are worth more.
    """
    return not backbone.startswith("test_") and family(backbone) is TABLE[0]


def augmentation(name: str, epochs: int) -> dict[str, Any]:
    """Return a line of AUGMENT, but medium instead of strong if the training is too short for that."""
    return AUGMENT["medium" if name == "strong" and epochs < LONG else name]


def defaults(
    backbone: str, metric: str, *, pretrained: bool = True, epochs: int = LONG, mixed: bool | None = None
) -> dict[str, Any]:
    """Return loss, optimizer, schedule, augmentation, weight averaging and drop path of a backbone, as plain values.

    Labels are smoothed for a standard metric, unless images are mixed, which smooths already (`mixed`, or by default
    what the family's augmentation does). Small networks are evaluated as the average of their last steps if they
    train for at least LONG epochs.
    """
    line = family(backbone, pretrained=pretrained)
    strong = line.augment == "strong" and epochs >= LONG
    mixes = strong if mixed is None else mixed
    rates = {"lr": line.lr, "backbone_lr_scale": line.backbone_lr_scale, "layer_decay": line.layer_decay}
    return {
        "loss": {"name": "cross_entropy", "label_smoothing": 0.1 if metric in STANDARD and not mixes else 0.0},
        "optimizer": {"name": "adamw", **rates, "weight_decay": line.weight_decay},
        "schedule": {"name": "cosine", "warmup_epochs": 1},
        "augment": augmentation(line.augment, epochs),
        "weight_averaging": {"name": "ema"} if strong else {"name": "none"},
        "drop_path": line.drop_path,
    }


def filled(train: dict[str, Any], metric: str, *, mixed: bool | None = None) -> dict[str, Any]:
    """Return `train` with the parts it leaves out; a part that is there stays as it is.

    `mixed` tells if images are mixed, where `augment` is left out although the file decides that. Predictions use
    mirror images if training does. They are corrected for class frequency, with a fitted strength, if the metric is a
    mean over classes.
    """
    backbone = train.get("backbone")
    if not isinstance(backbone, str):
        return train
    epochs = train.get("epochs", TrainConfig.model_fields["epochs"].default)
    known: dict[str, Any] = {"epochs": epochs} if isinstance(epochs, int) else {}
    augment = train.get("augment")
    known["mixed"] = any(augment.get(key) for key in MIXING) if isinstance(augment, dict) else mixed
    parts = defaults(backbone, metric, pretrained=train.get("pretrained") is not False, **known)
    own = _of_weights(train, backbone)
    looks = {"tta": {"flip": _mirrored(train.get("augment")), "scales": SCALES}}
    fits = _mean(metric) and metric in STANDARD  # metrics of probabilities take them as they are
    return parts | looks | {"posthoc_logit_adjustment": {"fit": fits}} | train | own


def _of_weights(train: dict[str, Any], backbone: str) -> dict[str, Any]:
    """Return arguments and normalization from config.json beside local weights; values in the recipe come first."""
    weights, given = train.get("weights"), train.get("backbone_args", {})
    described = described_by(weights, backbone) if train.get("pretrained") is not False else None
    if described is None or not isinstance(given, dict):
        return {}
    scale = {"mean": list(described.mean), "std": list(described.std)}
    known = {"normalize": scale} if described.mean and described.std and "normalize" not in train else {}
    return known | ({"backbone_args": described.arguments | given} if described.arguments else {})


def described_by(weights: Any, backbone: str) -> ModelConfig | None:
    """Return the contents of timm's config.json beside the weights of a backbone, if there is one."""
    place = weights_folder.find(weights, backbone).config if isinstance(weights, str) else None
    return weights_folder.config(place) if place else None


def _mean(metric: str) -> bool:
    """True if every class counts the same."""
    return metric != "overall_accuracy"


def _mirrored(augment: Any) -> bool:
    return not isinstance(augment, dict) or augment.get("horizontal_flip", 0.5) != 0
