"""The plain script: a search as a good user of PyTorch, timm and Optuna writes it by hand, without `sweep`.

    python benchmarks/plain.py --root DATA --weights FILE --out FOLDER --trials 50

The images are decoded once, into files that all processes map. As many processes as --slots share one study in a
journal, as in Optuna's documentation, with TPE and the median pruner as shipped and a first trial of usual settings.
They train with torchvision's transforms, timm's optimizer factory (no decay of norms and biases), mixed precision and
channels_last, and keep the best epoch's weights. DATA holds labels.csv with path, split and one column per category.
Each trial leaves NAME.json and NAME.pt in FOLDER/trials. The peers rival_ray.py and rival_syne.py train likewise.
"""

import argparse
import csv
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

BATCH = 64
MEAN = STD = (0.5, 0.5, 0.5)
ROOM = 1.14  # the side of a kept image over that of the network's input
SPLITS = ("train", "val", "test")
USUAL = {"lr": 2e-3, "weight_decay": 0.05, "loss": "cross_entropy", "smoothing": 0.1, "min_area": 0.6}
USUAL |= {"brightness": 0.0, "warmup": 1}
"""The first trial of `sweep` in these ranges, which the others try first, too."""


@dataclass(frozen=True)
class Given:
    """The search: its images, its length, and where it trains."""

    root: Path
    out: Path
    weights: str = ""
    trials: int = 50
    epochs: int = 4
    size: int = 40
    seed: int = 0
    slots: int = 1  # trials side by side
    device: str = "cpu"
    began: float = 0.0  # when the clock started, in seconds since 1970


@dataclass(frozen=True)
class Split:
    """The images of one split, their labels [N, K], and the classes of each category."""

    paths: list[Path]
    labels: Tensor
    classes: list[list[str]]


class Photographs(Dataset[tuple[Tensor, Tensor]]):
    """Decoded images, [N, side, side, 3], that are augmented one by one."""

    def __init__(self, images: np.ndarray, labels: Tensor, transform: Any) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


class Net(nn.Module):
    """A timm backbone and one linear layer over all classes."""

    def __init__(self, weights: str, classes: int) -> None:
        super().__init__()
        self.backbone = timm.create_model("mobilenetv2_100", pad_type="same", num_classes=0)
        if weights:
            state = load_file(weights)
            own = self.backbone.state_dict()
            self.backbone.load_state_dict({k: state.get(k, own[k]) for k in own})
        self.head = nn.Linear(self.backbone.num_features, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(images))
        return logits


# ---------------------------------------------------------------------------------------------- data
def read(root: Path) -> dict[str, Split]:
    """Return the splits of labels.csv."""
    with (root / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name not in ("path", "split")]
    classes = [sorted({row[name] for row in rows}) for name in names]
    found = {}
    for split in SPLITS:
        mine = [row for row in rows if row["split"] == split]
        labels = [[classes[k].index(row[name]) for k, name in enumerate(names)] for row in mine]
        found[split] = Split([root / row["path"] for row in mine], torch.tensor(labels), classes)
    return found


def decoded(split: Split, size: int) -> np.ndarray:
    """Return the images of a split as squares a little larger than the network's input, [N, side, side, 3]."""
    side = round(ROOM * size)
    images = np.empty((len(split.paths), side, side, 3), np.uint8)
    for number, path in enumerate(split.paths):
        with Image.open(path) as image:
            images[number] = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))
    return images


def prepare(given: Given) -> None:
    """Decode the images of train and val into files."""
    (given.out / "trials").mkdir(parents=True, exist_ok=True)
    splits = read(given.root)
    for name in SPLITS[:2]:
        np.save(given.out / f"{name}.npy", decoded(splits[name], given.size))


def plain(size: int) -> Any:
    return transforms.Compose(
        [transforms.Resize((size, size)), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    )


def changed(size: int, params: dict[str, Any]) -> Any:
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=(params["min_area"], 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(brightness=params["brightness"]),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )


def loader(
    images: np.ndarray, labels: Tensor, transform: Any, device: str, *, train: bool
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Return a loader; on a CPU without workers, since each process there has one core."""
    workers = 0 if device == "cpu" else 4
    return DataLoader(
        Photographs(images, labels, transform),
        batch_size=BATCH if train else 2 * BATCH,
        shuffle=train,
        drop_last=train,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device == "cuda",
    )


# ------------------------------------------------------------------------------------------ training
def suggest(trial: Any) -> dict[str, Any]:
    """Draw the parameters with an Optuna trial from the same ranges as in benchmarks/question.py."""
    params: dict[str, Any] = {
        "lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-3, 0.3, log=True),
        "loss": trial.suggest_categorical("loss", ["cross_entropy", "focal"]),
        "min_area": trial.suggest_float("min_area", 0.2, 1.0),
        "brightness": trial.suggest_float("brightness", 0.0, 0.4),
        "warmup": trial.suggest_categorical("warmup", [0, 1]),
    }
    if params["loss"] == "focal":
        params["gamma"] = trial.suggest_float("gamma", 0.0, 4.0)
    else:
        params["smoothing"] = trial.suggest_float("smoothing", 0.0, 0.2)
    return params


def loss_of(logits: Tensor, labels: Tensor, sizes: list[int], params: dict[str, Any]) -> Tensor:
    """Return the mean loss over the categories."""
    losses = []
    for k, part in enumerate(torch.split(logits.float(), sizes, 1)):
        if params["loss"] == "focal":
            nll = F.cross_entropy(part, labels[:, k], reduction="none")
            losses.append(((1 - torch.exp(-nll)).clamp_min(1e-6) ** params["gamma"] * nll).mean())
        else:
            losses.append(F.cross_entropy(part, labels[:, k], label_smoothing=params["smoothing"]))
    return torch.stack(losses).mean()


@torch.inference_mode()
def accuracy(net: Net, batches: DataLoader[tuple[Tensor, Tensor]], sizes: list[int], device: str) -> float:
    """Return the share of right answers over images and categories."""
    net.eval()
    right = torch.zeros((), device=device)
    for images, labels in batches:
        with torch.autocast(device, enabled=device == "cuda"):
            logits = net(images.to(device, non_blocking=True, memory_format=torch.channels_last))
        found = torch.stack([part.argmax(1) for part in logits.split(sizes, 1)], 1)
        right += (found == labels.to(device)).sum()
    return right.item() / (len(cast(Photographs, batches.dataset)) * len(sizes))


class Training:
    """What the trials of one process share, which has its part of the machine's cores."""

    def __init__(self, given: Given) -> None:
        self.given = given
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // given.slots))
        torch.set_float32_matmul_precision("high")
        splits = read(given.root)
        self.sizes = [len(classes) for classes in splits["train"].classes]
        self.images = {name: np.load(given.out / f"{name}.npy", mmap_mode="r") for name in SPLITS[:2]}
        self.labels = {name: splits[name].labels for name in SPLITS[:2]}
        transform = plain(given.size)
        self.val = loader(self.images["val"], self.labels["val"], transform, given.device, train=False)

    def run(self, params: dict[str, Any], number: int) -> Iterator[float]:
        """Train, and yield the accuracy on val after each epoch; the trial's files hold its best epoch so far."""
        best, kept = 0.0, self.given.out / "trials" / f"{number}.json"
        for epoch, (value, net) in enumerate(self._epochs(params, number), 1):
            if value > best:
                best = value
                torch.save(net.state_dict(), kept.with_suffix(".pt"))
            line = {"value": best, "epochs": epoch, "params": params, "seconds": time.time() - self.given.began}
            kept.write_text(json.dumps(line))
            yield value

    def _epochs(self, params: dict[str, Any], number: int) -> Iterator[tuple[float, Net]]:
        device, epochs = self.given.device, self.given.epochs
        torch.manual_seed(1000 * self.given.seed + number)
        transform = changed(self.given.size, params)
        batches = loader(self.images["train"], self.labels["train"], transform, device, train=True)
        net = Net(self.given.weights, sum(self.sizes)).to(device).to(memory_format=torch.channels_last)
        optimizer = create_optimizer_v2(net, "adamw", lr=params["lr"], weight_decay=params["weight_decay"])
        steps, warm = epochs * len(batches), params["warmup"] * len(batches)
        rise = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=max(1, warm))
        fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - warm)
        schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], [warm]) if warm else fall
        scaler = torch.amp.GradScaler(device, enabled=device == "cuda")
        for _ in range(epochs):
            net.train()
            for images, labels in batches:
                images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
                with torch.autocast(device, enabled=device == "cuda"):
                    logits = net(images)
                loss = loss_of(logits, labels.to(device, non_blocking=True), self.sizes, params)
                optimizer.zero_grad(set_to_none=True)
                scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                scaler.step(optimizer)
                scaler.update()
                schedule.step()
            yield accuracy(net, self.val, self.sizes, device), net


@cache
def training(given: Given) -> Training:
    """Return the one that this process has."""
    return Training(given)


# ---------------------------------------------------------------------------------------- the search
def search(given: Given, worker: int) -> None:
    """Run trials in this process until all processes together have run enough."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial: optuna.Trial) -> float:
        best = 0.0
        for epoch, value in enumerate(training(given).run(suggest(trial), trial.number), 1):
            best = max(best, value)
            trial.report(value, epoch)
            if epoch < given.epochs and trial.should_prune():
                raise optuna.TrialPruned
        return best

    study = optuna.create_study(
        study_name="question",
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(given.out / "journal.log"))),
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=given.seed + 1000 * worker),
        pruner=optuna.pruners.MedianPruner(),
        load_if_exists=True,
    )
    if worker == 0:
        study.enqueue_trial(USUAL)
    ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED, optuna.trial.TrialState.RUNNING)
    enough = optuna.study.MaxTrialsCallback(given.trials, states=ended)
    study.optimize(objective, callbacks=[enough])


def arguments(description: str) -> Given:
    ask = argparse.ArgumentParser(description=description)
    ask.add_argument("--root", type=Path, required=True)
    ask.add_argument("--out", type=Path, required=True)
    for field in fields(Given)[2:]:
        ask.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    return Given(**vars(ask.parse_args()))


def main() -> None:
    given = arguments(__doc__ or "")
    prepare(given)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=search, args=(given, number)) for number in range(given.slots)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit("a process of the search failed")


if __name__ == "__main__":
    main()
