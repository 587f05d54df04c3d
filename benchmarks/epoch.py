"""Measure R: the duration of an epoch of training over that of the same steps on one batch in memory.

    python benchmarks/epoch.py [--quick] [--device cuda]

Our lane is `TrainingRun.fit` of `trainers.train`. The plain lane is a script with a DataLoader of two persistent
workers, torchvision transforms, and pinned memory and mixed precision on a GPU. All lanes start from the same weights
and see equally many images.
The exit code is 1 if the accuracies of ours and the plain script on val differ by more than chance allows.
"""

import copy
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rounds

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in workers; torch reads it when it is loaded

import torch
from feed import by_torchvision
from pictures import draw
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from trainers.config import Recipe
from trainers.evaluation import metrics
from trainers.loading.batches import Data
from trainers.loading.loader import AugmentationSource, Batch
from trainers.train import TrainingRun

AUGMENT = {
    "random_resized_crop": {"scale": (0.35, 1.0)},
    "rotation": 10,
    "color_jitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2},
}
VAL = 120
EQUAL = 0.9  # least share of equal answers: a network with so little training is often undecided between two
WORKERS = 2


@dataclass(frozen=True)
class Case:
    """A network, the side of its input, and the number of images per epoch."""

    backbone: str
    size: int
    images: int
    batch: int
    metric: float  # largest R


CPU: tuple[Case, ...] = (Case("mobilenetv3_small_050", 64, 512, 32, 1.3), Case("resnet10t", 64, 384, 32, 1.3))
CPU += (Case("resnet10t", 128, 192, 32, 1.05),)
CUDA: tuple[Case, ...] = (Case("resnet50", 224, 4096, 128, 1.05), Case("convnext_large", 224, 1024, 64, 1.05))


class Files(Dataset[tuple[Tensor, Tensor]]):
    """The images of a split, each decoded and augmented when it is requested, as in a plain script."""

    def __init__(self, data: Data, split: str, transform: Callable[[Image.Image], Tensor]) -> None:
        rows = data.table.indices(split)
        self.paths = [data.table.root / data.table.rows[row].path for row in rows]
        self.labels, self.transform = torch.from_numpy(data.labels(rows)), transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        return self.transform(Image.open(self.paths[number]).convert("RGB")), self.labels[number]


class Plain:
    """The training script that people write first, with the well-known ways to make it fast."""

    def __init__(self, run: TrainingRun, case: Case) -> None:
        self.run, self.net = run, copy.deepcopy(run.net)
        self.cuda = run.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=1e-3, weight_decay=0.05, fused=True)
        last = transforms.Normalize(run.lens.eye.mean.tolist(), run.lens.eye.std.tolist())
        whole = transforms.Compose([transforms.Resize((case.size,) * 2), transforms.ToTensor(), last])
        much: dict[str, Any] = {"num_workers": WORKERS, "persistent_workers": True, "pin_memory": self.cuda}
        self.train = DataLoader(
            Files(run.data, "train", by_torchvision(case.size)), case.batch, shuffle=True, drop_last=True, **much
        )
        self.val = DataLoader(Files(run.data, "val", whole), case.batch)

    def epoch(self) -> None:
        self.net.train()
        for images, labels in self.train:
            loss = self.run.objective(self._see(images), labels.to(self.run.device, non_blocking=True)).mean()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
        self._wait()

    def _see(self, images: Tensor) -> Tensor:
        there = images.to(self.run.device, non_blocking=True, memory_format=self.run.lens.eye.layout)
        with torch.autocast("cuda", torch.bfloat16) if self.cuda else nullcontext():
            logits: Tensor = self.net(there)
        return logits

    def _wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    @torch.inference_mode()
    def answers(self) -> np.ndarray:
        """Return the likeliest classes of val, [N, K], as this script evaluates."""
        self.net.eval()
        logits = torch.cat([self._see(images) for images, _ in self.val]).float().cpu().numpy()
        return metrics.answers(logits, metrics.Columns.of(self.run.data.categories))


class Floor:
    """The training steps of our lane, repeated on one batch."""

    def __init__(self, run: TrainingRun, steps: int) -> None:
        self.run, self.steps = run, steps
        chunk = np.array(run.rows[: run.config.batch_size])
        drawing = AugmentationSource(run.config.augment, np.random.default_rng(0), run.minority)
        (batch,) = run.lens.feed(run.config.input_size, training=True).training([chunk], drawing)
        self.batch: Batch = replace(batch, images=batch.images.clone(memory_format=torch.preserve_format))

    def epoch(self) -> None:
        self.run.net.train()
        for _ in range(self.steps):
            loss, _ = self.run.backward(self.batch, 1)
            self.run.step()
        loss.item()


class Timed:
    """A lane that returns an epoch's wall seconds and keeps its CPU seconds."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.work = work
        self.cpu: list[float] = []

    def __call__(self) -> float:
        began = time.perf_counter()
        self.cpu.append(rounds.cpu(self.work))
        return time.perf_counter() - began


def measured(case: Case, device: str, count: int, folder: Path) -> tuple[list[list[object]], list[object]]:
    """Return two lines for the table and one for the gate."""
    side = -(-round(1.14 * case.size) // 32) * 32
    config = draw(folder / "images", train=case.images, val=VAL, size=side)
    data = Data.open(config, folder / "cache")
    train = {"backbone": case.backbone, "pretrained": False, "image_size": case.size, "batch_size": case.batch}
    recipe = Recipe(data=config, train={**train, "epochs": count + 1, "augment": AUGMENT, "schedule": "constant"})
    ours, other = (
        TrainingRun(recipe, data, ("train",), torch.device(device), folder / name) for name in ("ours", "floor")
    )
    plain, floor, epochs = Plain(ours, case), Floor(other, case.images // case.batch), iter(range(count + 1))
    lanes = {
        "ours": Timed(lambda: ours.fit(next(epochs))),
        "plain": Timed(plain.epoch),
        "floor": Timed(floor.epoch),
    }
    rounds.interleave(lanes, 1)  # warm
    wall = rounds.interleave(lanes, count)
    return lines(case, lanes, wall), gate(case, ours, plain)


def lines(case: Case, lanes: dict[str, Timed], wall: dict[str, list[float]]) -> list[list[object]]:
    floor = wall["floor"]
    made: list[list[object]] = []
    for name in ("ours", "plain"):
        found = rounds.ratio(wall[name], floor, floor)
        work = rounds.ratio(lanes[name].cpu[1:], lanes["floor"].cpu[1:], floor)
        verdict = (f"<= {case.metric}", rounds.verdict(found.median, case.metric)) if name == "ours" else ("", "")
        own = str(work) if name == "ours" else "workers not counted"
        each = float(np.median(floor)) * 1000 / case.images
        made.append([case.backbone, case.size, name, found, found.dropped, own, each, *verdict])
    return made


def gate(case: Case, ours: TrainingRun, plain: Plain) -> list[object]:
    """Compare both accuracies on val after equally many images, which may differ by three standard errors.

    Also compare the answers of the plain script's weights as both lanes evaluate them, by the share of equal ones.
    """
    asked = metrics.Columns.of(ours.data.categories)
    true = metrics.truths(ours.data.labels(ours.val), asked)
    theirs = plain.answers()
    mine, again = (
        metrics.answers(ours.lens.logits(net, ours.val).cpu().numpy(), asked) for net in (ours.net, plain.net)
    )
    one, other, equal = ((a == b).mean().item() for a, b in ((mine, true), (theirs, true), (again, theirs)))
    most = 3 * math.sqrt(((one + other) * (2 - one - other)) / 2 / true.size)
    passed = abs(one - other) <= most and equal >= EQUAL
    return [case.backbone, case.size, one, other, most, equal, "met" if passed else "missed"]


def main() -> int:
    given = rounds.arguments(__doc__ or "").parse_args()
    cases = CUDA if given.device == "cuda" else CPU
    if given.quick and given.device == "cpu":
        cases = tuple(replace(case, images=case.images // 2) for case in (CPU[0], CPU[2]))
    found: list[list[object]] = []
    gates: list[list[object]] = []
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            some, one = measured(case, given.device, 5 if given.quick else 9, Path(folder))
        found, gates = found + some, [*gates, one]
    print(rounds.hardware(given.device), "\n")
    headers = ["network", "side", "path", "R", "dropped", "R of CPU seconds", "floor, ms per image", "target", ""]
    print(rounds.table(headers, found), "\n")
    print(
        rounds.table(
            ["network", "side", "val, ours", "val, plain", "may differ by", "same weights, equal answers", "gate"],
            gates,
        )
    )
    return int(any(one[-1] == "missed" for one in gates))


if __name__ == "__main__":
    sys.exit(main())
