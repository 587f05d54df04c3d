"""A network for several categories: timm's backbone, and a head over all classes."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import register_model
from torch import Tensor, nn

from trainers import extensions
from trainers.config import Normalize, TrainConfig
from trainers.models import foreign_weights, heads, majority, query2label, van
from trainers.models.foreign_weights import Weights
from trainers.support import weights_folder
from trainers.support.device import in_full
from trainers.support.errors import EnvironmentFault, UserError

for _entry in (*van.MODELS, majority.majority):
    register_model(_entry)

KEPT = 2  # backbones whose weights a process keeps on the host for later networks
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Network(nn.Module):
    """Images [B, 3, S, S] float -> logits [B, sum C], the categories side by side."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.backbone(images)
        if isinstance(self.head, query2label.Decoder):  # deep; it computes its own last layers in full precision
            logits: Tensor = self.head(features)
            return logits
        return in_full(self.head, features)


def build(config: TrainConfig, sizes: Sequence[int]) -> Network:
    """Return the network of a recipe on the CPU; parts without published weights are initialised from its seed.

    sizes [K]: classes of each category. The head is initialised alike whether or not the backbone is pretrained.
    """
    torch.manual_seed(config.seed)
    backbone = _filled(config) if config.pretrained else create(config)
    torch.manual_seed(config.seed)
    return _laid(config, Network(backbone, head(config, backbone, sizes)))


def unloaded(config: TrainConfig, sizes: Sequence[int]) -> Network:
    """Return the network of a recipe with random weights, even if the recipe is pretrained."""
    backbone = create(config)
    return Network(backbone, head(config, backbone, sizes))


def restored(config: TrainConfig, sizes: Sequence[int], weights: Mapping[str, Tensor], path: Path) -> Network:
    """Return the network of a recipe with all its weights from one of our own files, named `path` in errors.

    Raises EnvironmentFault if they do not fit.
    """

    network = unloaded(config, sizes)
    if faults := _faults(network.state_dict(), weights):
        raise EnvironmentFault(f"the model does not fit its recipe: {faults[0]}", where=str(path))
    network.load_state_dict(weights)
    return _laid(config, network)


def _laid(config: TrainConfig, network: Network) -> Network:
    return network.to(memory_format=torch.channels_last) if channels_last(config, network.backbone) else network


def set_class_counts(
    net: Network, counts: Sequence[Sequence[int]], images: Sequence[int], multi: Sequence[bool]
) -> None:
    """Give the majority baseline the training images of each class, [K][C]; other networks do not need them.

    images [K]: the number with an answer; multi [K]: categories with several answers.
    """
    if isinstance(net.head, majority.Prior):
        net.head.set_prior(counts, images, multi)


def head(config: TrainConfig, backbone: Any, sizes: Sequence[int]) -> nn.Module:
    """Return the recipe's head for this backbone; the majority baseline has its own."""
    if isinstance(backbone, majority.MajorityBaseline):
        return majority.Prior(sum(sizes))
    prefix = int(getattr(backbone, "num_prefix_tokens", hasattr(backbone, "cls_token")))
    height, width = config.input_size
    return heads.build(config.head, features(config, backbone), sizes, prefix=prefix, aspect=height / width)


def features(config: TrainConfig, backbone: Any) -> int:
    """Return the number of features that the head sees; some families widen them once more after the last stage."""
    if heads.need(config.head) == "logits":
        return int(backbone.num_classes)
    return int(getattr(backbone, "head_hidden_size", None) or backbone.num_features)


def _filled(config: TrainConfig) -> Any:
    """Return the backbone with its published weights, or with those of the recipe's file."""
    backbone, local = create(config), weights_file(config)
    if local is None:
        arguments = json.dumps(_arguments(config), sort_keys=True)
        weights = _published(config.backbone, arguments, heads.need(config.head))
    else:
        weights = fitting(backbone, local).tensors
    backbone.load_state_dict(weights)
    return backbone


@lru_cache(maxsize=KEPT)
def _published(name: str, arguments: str, need: str) -> dict[str, Tensor]:
    """Return the weights of a backbone that timm makes with these arguments, from the hub; cached on the host."""
    state: dict[str, Tensor] = _made(name, json.loads(arguments), need, pretrained=True).state_dict()
    return state


def create(config: TrainConfig) -> Any:
    """Return the backbone as the head needs it: images -> pooled features [B, D], its own class scores, or last map.

    It is timm's, or a model from an extension file, which returns pooled features.
    """
    if definition := extensions.find("models", config.backbone):
        return _own(definition, config)
    return _made(config.backbone, _arguments(config), heads.need(config.head))


def _own(definition: extensions.Definition, config: TrainConfig) -> Any:
    """Return a model from an extension file. Raises UserError if it does not declare its number of features."""
    backbone = definition.module(**definition.given(config.backbone_args))
    if not isinstance(getattr(backbone, "num_features", None), int):
        advice = "in __init__, set self.num_features to F, the number of its features [B, F]"
        raise UserError(f"the model {definition.name} has no num_features", where=definition.where, help=advice)
    return backbone


def _made(name: str, given: dict[str, Any], need: str, *, pretrained: bool = False) -> Any:
    arguments = {} if need == "logits" else {"num_classes": 0}
    backbone = timm.create_model(name, pretrained=pretrained, **arguments, **given)
    if need == "map" and name != majority.NAME:
        backbone.reset_classifier(0, "")  # only now: built with another pooling, some lack the weights of a norm
    return backbone


def _arguments(config: TrainConfig) -> dict[str, Any]:
    arguments: dict[str, Any] = dict(config.backbone_args)
    default = timm.get_pretrained_cfg(config.backbone)
    if default is not None and default.fixed_input_size and default.input_size[1:] != config.input_size:
        height, width = config.input_size
        arguments.setdefault("img_size", height if height == width else (height, width))
    if config.drop_path is not None:
        arguments.setdefault("drop_path_rate", config.drop_path)
    return arguments


def is_fixed(backbone: str) -> bool:
    """True if timm builds it for one image size, which its pretrained weights expect."""
    default = timm.get_pretrained_cfg(backbone)
    return default is not None and default.fixed_input_size


def weights_file(config: TrainConfig) -> Path | None:
    """Return the path of the local weights that a recipe names; it may not exist. The majority baseline has none."""
    if config.weights is None or config.backbone == majority.NAME:
        return None
    return weights_folder.find(config.weights, config.backbone).file


def fitting(backbone: Any, path: Path) -> Weights:
    """Return every tensor of a backbone, by name, from a file in timm's key layout, without an unused classifier.

    Raises EnvironmentFault if a weight of the backbone is missing, has another shape or is not finite, or if a key
    fits nowhere.
    """
    wanted = backbone.state_dict()
    stamp = (path.stat().st_mtime_ns, path.stat().st_size) if path.exists() else (0, 0)
    found = foreign_weights.under(_read(path, *stamp), wanted)
    counters = {key: torch.zeros_like(value, device="cpu") for key, value in wanted.items() if _counts(key)}
    classifier = tuple(f"{name}." for name in _classifiers(backbone))
    given = counters | {k: v for k, v in found.tensors.items() if k in wanted or not k.startswith(classifier)}
    if faults := _faults(wanted, given):
        both = f"the file starts with {_first(found.tensors)}; the network with {_first(wanted)}"
        raise EnvironmentFault(
            f"the weights do not fit the backbone: {'; '.join(faults)} ({both})",
            where=str(path),
            help="the file must use timm's key names for this backbone; check backbone and backbone_args",
        )
    _refuse_no_numbers(wanted, given, path)
    return Weights(given, found.notes)


def _first(tensors: Mapping[str, Tensor]) -> str:
    return f"{', '.join(list(tensors)[:3])} ({len(tensors)} keys)"


def _refuse_no_numbers(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], path: Path) -> None:
    """Raise EnvironmentFault if a value is NaN or infinite, also in the network's format, or is an integer."""
    whole = [key for key, value in given.items() if wanted[key].is_floating_point() > value.is_floating_point()]
    if whole:
        what = f"the weights are quantized: {whole[0]} is {given[whole[0]].dtype}".replace("torch.", "")
        raise EnvironmentFault(what, where=str(path), help="use the weights from before quantization")
    bad = [key for key, tensor in given.items() if not _finite(tensor.to(wanted[key].dtype))]
    if bad:
        more = f" and in {len(bad) - 1} more" if bad[1:] else ""
        advice = "use weights from before that training diverged, or download the file again"
        raise EnvironmentFault(
            f"the weights contain NaN or infinity, in {bad[0]}{more}", where=str(path), help=advice
        )


def _finite(tensor: Tensor) -> bool:
    """True if all values are finite. A finite sum proves it in a tenth of the time; every trial checks this."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def _counts(key: str) -> bool:
    return key.endswith(".num_batches_tracked")


@lru_cache(maxsize=KEPT)
def _read(path: Path, time: int, size: int) -> Weights:  # noqa: ARG001  another time or size is another file
    return foreign_weights.read(path)


def _classifiers(backbone: Any) -> tuple[str, ...]:
    names = (getattr(backbone, "pretrained_cfg", None) or {}).get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _faults(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Return the misfits: one line each for missing keys, unknown keys and other shapes, with counts."""
    shapes = [key for key in wanted if key in given and given[key].shape != wanted[key].shape]
    kinds = (
        ([key for key in wanted if key not in given], "is missing"),
        ([key for key in given if key not in wanted], "is not in the network"),
        (shapes, f"has shape {_shape(given, shapes)}, not {_shape(wanted, shapes)}"),
    )
    return [f"{keys[0]} {what}" + (f" and {len(keys) - 1} more" if keys[1:] else "") for keys, what in kinds if keys]


def _shape(tensors: Mapping[str, Tensor], keys: Sequence[str]) -> tuple[int, ...]:
    """Return the shape of the first of these tensors."""
    return tuple(tensors[keys[0]].shape) if keys else ()


def normalization(config: TrainConfig, network: Network) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of the input channels, [3] each, on a scale of 0 to 1."""
    if isinstance(config.normalize, Normalize):
        return _three(config.normalize.mean), _three(config.normalize.std)
    default = getattr(network.backbone, "pretrained_cfg", None) or {}
    if config.normalize == "imagenet" or "mean" not in default:
        return IMAGENET
    return tuple(default["mean"]), tuple(default["std"])


def _three(value: float | tuple[float, float, float]) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,) * 3


def channels_last(config: TrainConfig, backbone: nn.Module) -> bool:
    """True if channels come last in memory: as the recipe says, or else for mostly convolutional networks."""
    if config.channels_last is not None:
        return config.channels_last
    convolution = sum(m.weight.numel() for m in backbone.modules() if isinstance(m, nn.Conv2d))
    linear = sum(m.weight.numel() for m in backbone.modules() if isinstance(m, nn.Linear))
    return convolution > linear
