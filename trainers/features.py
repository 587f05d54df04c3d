"""What a frozen backbone sees in the images: computed once a backbone, size and weights, then kept in a file."""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainers import computing
from trainers.checkpoint import load_weights, save_weights
from trainers.config import Augment, Recipe, TrainConfig
from trainers.data.batches import Data, in_order
from trainers.data.images import stamp
from trainers.errors import EnvironmentFault
from trainers.feed import Drawing
from trainers.models import network
from trainers.models.heads import NEEDS
from trainers.predict import Lens

log = logging.getLogger(__name__)

VERSION = 1  # of the files; another one is another file
DRAWN = 128  # images whose augmentation is drawn together, whatever the recipe's batch
VIEWS = 4  # of each training image: as it is, and draws of the augmentation


@dataclass(frozen=True)
class Features:
    """Features of both splits in the order of their rows, of 16 bits where that holds them, on the device."""

    train: Tensor  # [N, V, D]; view 0 is the plain image
    val: Tensor  # [M, D]


def alike(config: TrainConfig) -> str:
    """Equal for recipes whose frozen backbones see the same in a plain image."""
    keys = ("backbone", "backbone_args", "normalize", "image_size", "pretrained", "weights", "precision")
    given = config.model_dump(mode="json", include=set(keys))
    seed = None if config.pretrained else config.seed  # of random weights
    return json.dumps([given, NEEDS[config.head.name], seed], sort_keys=True)


def features(recipe: Recipe, data: Data, folder: Path, device: torch.device, *, views: int = VIEWS) -> Features:
    """The features of train and val, read from `folder`, or computed and put there.

    The further views of train are draws of the recipe's augmentation, without mixing, that depend on nothing else.
    """
    place = folder / f"{_key(recipe.train, data, device, views)}.safetensors"
    found = _kept(place)
    if found is None:
        found = _computed(recipe.train, data, device, views)
        save_weights(place, found, {"backbone": recipe.train.backbone, "image_size": recipe.train.image_size})
    return Features(found["train"].to(device), found["val"].to(device))


def _kept(place: Path) -> dict[str, Tensor] | None:
    """What lies there; None, said in the log, where that cannot be read."""
    try:
        return load_weights(place) if place.exists() else None
    except EnvironmentFault:
        log.warning("%s is damaged: the features are computed again", place)
        return None


def _key(config: TrainConfig, data: Data, device: torch.device, views: int) -> str:
    """Of everything that the features depend on: images, splits, backbone, its weights, and the views."""
    half = str(computing.half_format(config, device))
    words = [VERSION, data.table.fingerprint, stamp(data.table), data.cache.size, alike(config), _weights(config)]
    words += [half, views, device.type, _unmixed(config).model_dump_json()]
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]


def _weights(config: TrainConfig) -> str:
    path = network.weights_file(config) if config.pretrained else None
    if path is None:
        return f"timm {metadata.version('timm')}"
    return f"{path.absolute()} {path.stat().st_mtime_ns} {path.stat().st_size}"


def _unmixed(config: TrainConfig) -> Augment:
    return config.augment.model_copy(update={"mixup": 0.0, "cutmix": 0.0})


@torch.inference_mode()
def _computed(config: TrainConfig, data: Data, device: torch.device, views: int) -> dict[str, Tensor]:
    computing.prepare(device)
    net = network.build(config, data.sizes).to(device).eval()
    lens = Lens(config, data, net, device)
    train = data.table.indices("train")
    plain = _seen(net, lens.images(train), config, device)
    others = [_seen(net, _changed(lens, train, view), config, device) for view in range(1, views)]
    val = _seen(net, lens.images(data.table.indices("val")), config, device)
    return {"train": _narrow(torch.stack([plain, *others], dim=1)), "val": _narrow(val)}


def _changed(lens: Lens, rows: Sequence[int], view: int) -> Iterator[Tensor]:
    """The images of `rows` as a draw of the augmentation shows them, [B, 3, S, S] on the device."""
    nobody = np.zeros(len(lens.data.table.rows), dtype=bool)
    drawing = Drawing(_unmixed(lens.config), np.random.default_rng(view), nobody)
    feed = lens.feed(lens.config.image_size)
    for batch in feed.training(in_order(rows, DRAWN), drawing):
        yield batch.images


def _seen(net: network.Network, batches: Iterator[Tensor], config: TrainConfig, device: torch.device) -> Tensor:
    """What the backbone makes of the images, [N, D] float32 on the host."""
    parts = []
    for images in batches:
        with computing.autocast(config, device):
            parts.append(net.backbone(images).float().cpu())
    return torch.cat(parts)


def _narrow(found: Tensor) -> Tensor:
    """In half the memory, unless a value is too large for 16 bits."""
    half = found.half()
    return half if half.isfinite().all() else found
