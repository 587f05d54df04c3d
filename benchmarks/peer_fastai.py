"""A peer for equal_hours.py: fastai's `fine_tune`, as in its documentation, for as many epochs as fit.

    FASTAI/bin/python benchmarks/peer_fastai.py --root DATA --weights FILE --hours 0.5 --out FILE.csv

It uses a DataBlock with one block per category, `aug_transforms`, `vision_learner` with timm's network, and
`fine_tune` with its default rate on train and val together, then `tta` on test. Only the loss, a mean over
categories, is not from fastai's documentation.
"""

import time
from itertools import islice
from pathlib import Path
from typing import Any

import peers
import torch
import torch.nn.functional as F
from fastai.vision.all import (
    CategoryBlock,
    ColReader,
    DataBlock,
    ImageBlock,
    Resize,
    ResizeMethod,
    aug_transforms,
    vision_learner,
)
from torch import Tensor

BATCH, TIMED, MOST_EPOCHS = 64, 12, 30
FROZEN = 0.6  # the cost of an epoch in which only the head learns, over that of the whole network


def loss_of(sizes: list[int]) -> Any:
    def loss(logits: Tensor, *labels: Tensor) -> Tensor:
        plain = [each.as_subclass(Tensor) for each in (logits, *labels)]  # fastai's own subclasses do not mix
        parts = zip(plain[0].split(sizes, 1), plain[1:], strict=True)  # type: ignore[no-untyped-call]
        return torch.stack([F.cross_entropy(part, label) for part, label in parts]).mean()

    return loss


def loaders(given: peers.Given, table: peers.Table) -> Any:
    lines = [line for line in table.lines if line["split"] != "test"]
    block = DataBlock(
        blocks=(ImageBlock, *(CategoryBlock(vocab=classes) for classes in table.classes)),
        n_inp=1,
        get_x=lambda line: given.root / line["path"],
        get_y=[ColReader(name) for name in table.categories],
        splitter=lambda items: (list(range(len(items))), []),
        item_tfms=Resize(round(1.15 * given.size), method=ResizeMethod.Squish),
        batch_tfms=aug_transforms(size=given.size, min_scale=0.75),
    )
    return block.dataloaders(lines, bs=BATCH, num_workers=given.workers)


def seconds_per_epoch(learner: Any, loss: Any) -> float:
    """Time a few steps of the whole network, undo their effect, and return the seconds of an epoch."""
    before = {name: value.clone() for name, value in learner.model.state_dict().items()}
    began = time.monotonic()
    learner.model.train()
    for images, *labels in islice(learner.dls.train, TIMED):
        loss(learner.model(images), *labels).backward()
    learner.model.zero_grad()
    learner.model.load_state_dict(before)
    return (time.monotonic() - began) * max(1.0, len(learner.dls.train) / TIMED)


def main() -> None:
    began = time.monotonic()
    given = peers.arguments(__doc__ or "")
    torch.manual_seed(given.seed)
    table = peers.read(given.root)
    sizes = [len(classes) for classes in table.classes]
    loss = loss_of(sizes)
    learner = vision_learner(
        loaders(given, table),
        given.backbone,
        n_out=sum(sizes),
        loss_func=loss,
        path=Path(given.out).parent,
        pretrained_cfg_overlay={"file": str(given.weights)},
        **given.arguments,
    )
    learner.unfreeze()
    seconds = seconds_per_epoch(learner, loss)
    learner.freeze()
    left = 3600 * given.hours - (time.monotonic() - began)
    epochs = max(1, min(MOST_EPOCHS, int(0.9 * left / seconds - FROZEN)))
    learner.fine_tune(epochs)
    rows = table.split("test")
    tests = learner.dls.test_dl([{"path": name} for name in rows.names])
    logits, _ = learner.tta(dl=tests)
    answers = torch.stack([part.argmax(1) for part in logits.split(sizes, 1)], 1)
    print(f"{epochs} epochs, {time.monotonic() - began:.0f} s", flush=True)
    peers.write(given.out, table, rows, answers.tolist())


if __name__ == "__main__":
    main()
