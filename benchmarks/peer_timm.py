"""A peer for equal_hours.py: one good training written by hand around timm, for as many epochs as fit the hours.

    python benchmarks/peer_timm.py --root DATA --weights FILE --hours 0.5 --out FILE.csv

It uses timm's own parts with the settings of its recipes for fine-tuning: transforms with RandAugment and erasing,
AdamW with layer decay, a cosine over steps with warm-up, an EMA with warm-up, and smoothing .1. The images are
decoded once and kept. It trains on train and val together: the recipe is fixed, so nothing is chosen on val. Test is
predicted from the mean over each image and its mirror image.
"""

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import peers
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data import create_transform
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

BATCH, LR, DECAY, SMOOTHING, WARMUP = 64, 2e-3, 0.05, 0.1, 1
LAYER_DECAY, EMA, MOST_EPOCHS = 0.9, 0.998, 30
TIMED = 20  # steps


class Images(Dataset[tuple[Tensor, Tensor]]):
    """The images of a split, decoded once a little larger than the network's input, with their labels."""

    def __init__(self, rows: peers.Rows, size: int, transform: Any) -> None:
        self.labels, self.transform = torch.tensor(rows.labels), transform
        side = round(size * 1.15)
        self.images = np.empty((len(rows.paths), side, side, 3), np.uint8)
        for number, path in enumerate(rows.paths):
            with Image.open(path) as image:
                self.images[number] = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def transform(size: int, *, train: bool) -> Any:
    scale = {"input_size": size, "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic"}
    if not train:
        return create_transform(**scale, crop_pct=1.0, crop_mode="squash")
    return create_transform(**scale, is_training=True, scale=(0.35, 1.0), auto_augment="rand-m7-mstd0.5", re_prob=0.1)


def network(given: peers.Given, classes: int) -> nn.Module:
    overlay = {"file": str(given.weights)}
    made: nn.Module = timm.create_model(
        given.backbone, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=classes, **given.arguments
    )
    return made


def loss_of(logits: Tensor, labels: Tensor, sizes: list[int]) -> Tensor:
    parts = zip(logits.split(sizes, 1), labels.T, strict=True)  # type: ignore[no-untyped-call]
    return torch.stack([F.cross_entropy(part, label, label_smoothing=SMOOTHING) for part, label in parts]).mean()


class Run:
    """The training, with a number of `epochs` that is planned from the seconds of a few steps."""

    def __init__(self, given: peers.Given, data: peers.Table, began: float) -> None:
        torch.manual_seed(given.seed)
        self.given, self.sizes = given, [len(classes) for classes in data.classes]
        images = Images(data.split("train", "val"), given.size, transform(given.size, train=True))
        self.batches = DataLoader(
            images, BATCH, shuffle=True, drop_last=True, num_workers=given.workers, persistent_workers=True
        )
        self.net = network(given, sum(self.sizes))
        self.ema = ModelEmaV3(self.net, decay=EMA, use_warmup=True)
        self.optimizer = create_optimizer_v2(self.net, "adamw", lr=LR, weight_decay=DECAY, layer_decay=LAYER_DECAY)
        self.epochs = self._planned(began)
        self.schedule = CosineLRScheduler(
            self.optimizer,
            t_initial=self.epochs * len(self.batches),
            warmup_t=WARMUP * len(self.batches),
            warmup_lr_init=1e-5,
            warmup_prefix=True,
            t_in_epochs=False,
        )

    def _planned(self, began: float) -> int:
        """Time a few steps, undo their effect, and return the epochs that fit nine tenths of the remaining time."""
        before = {name: value.clone() for name, value in self.net.state_dict().items()}
        start = time.monotonic()
        for batch in islice(self.batches, TIMED):
            self._step(*batch)
        seconds = (time.monotonic() - start) * max(1.0, len(self.batches) / TIMED)
        self.net.load_state_dict(before)
        self.optimizer.state.clear()
        left = 3600 * self.given.hours - (time.monotonic() - began)
        return max(1, min(MOST_EPOCHS, int(0.9 * left / seconds)))

    def _step(self, images: Tensor, labels: Tensor) -> None:
        self.optimizer.zero_grad()
        loss_of(self.net(images), labels, self.sizes).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def train(self) -> Iterator[int]:
        """Train, and yield the number of each epoch after it."""
        step = 0
        self.net.train()
        for epoch in range(self.epochs):
            for images, labels in self.batches:
                self._step(images, labels)
                step += 1
                self.schedule.step_update(step)
                self.ema.update(self.net, step=step)
            yield epoch + 1


@torch.inference_mode()
def predicted(run: Run, rows: peers.Rows) -> np.ndarray:
    """Return the likeliest class of each category, [N, K]."""
    images = Images(rows, run.given.size, transform(run.given.size, train=False))
    net, found = run.ema.module.eval(), []
    for batch, _ in DataLoader(images, 2 * BATCH):
        parts = zip(net(batch).split(run.sizes, 1), net(batch.flip(3)).split(run.sizes, 1), strict=True)
        found.append(torch.stack([(a.softmax(1) + b.softmax(1)).argmax(1) for a, b in parts], 1))
    return torch.cat(found).numpy()


def main() -> None:
    began = time.monotonic()
    given = peers.arguments(__doc__ or "")
    data = peers.read(given.root)
    run = Run(given, data, began)
    for epoch in run.train():
        print(f"epoch {epoch} of {run.epochs}, {time.monotonic() - began:.0f} s", flush=True)
    rows = data.split("test")
    peers.write(given.out, data, rows, predicted(run, rows))


if __name__ == "__main__":
    main()
