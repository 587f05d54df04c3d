"""The plain script: a search as a good user of PyTorch and Optuna writes it by hand, without `sweep`.

    python benchmarks/plain.py --root DATA --weights FILE --out FOLDER --trials 50

It uses TPE and the median pruner as Optuna ships them, on an SQLite file; persistent, pinned DataLoader workers with
torchvision's transforms; mixed precision, channels_last and a fused AdamW. It keeps the best epoch's weights. DATA
holds labels.csv with path, split and one column per category. Each trial adds one line of JSON to
FOLDER/trials.jsonl.
"""

import argparse
import csv
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import optuna
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

BATCH = 64
MEAN = STD = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Split:
    """The images of one split, their labels [N, K], and the classes of each category."""

    paths: list[Path]
    labels: Tensor
    classes: list[list[str]]


class Photographs(Dataset[tuple[Tensor, Tensor]]):
    """Images that the loader's workers decode and augment one by one."""

    def __init__(self, split: Split, transform: Any) -> None:
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        with Image.open(self.split.paths[index]) as image:
            return self.transform(image.convert("RGB")), self.split.labels[index]


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


def read(root: Path) -> dict[str, Split]:
    """Return the splits of labels.csv."""
    with (root / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name not in ("path", "split")]
    classes = [sorted({row[name] for row in rows}) for name in names]
    found = {}
    for split in ("train", "val", "test"):
        mine = [row for row in rows if row["split"] == split]
        labels = [[classes[k].index(row[name]) for k, name in enumerate(names)] for row in mine]
        found[split] = Split([root / row["path"] for row in mine], torch.tensor(labels), classes)
    return found


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


def loader(split: Split, transform: Any, device: str, *, train: bool) -> DataLoader[tuple[Tensor, Tensor]]:
    return DataLoader(
        Photographs(split, transform),
        batch_size=BATCH if train else 2 * BATCH,
        shuffle=train,
        drop_last=train,
        num_workers=2,
        persistent_workers=True,
        pin_memory=device == "cuda",
    )


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    """Draw the parameters from the same ranges as in benchmarks/question.py."""
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


class Sweep:
    """The search, with everything that its trials share."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.began = given, given.began or time.time()
        self.splits = read(given.root)
        self.sizes = [len(classes) for classes in self.splits["train"].classes]
        self.val = loader(self.splits["val"], plain(given.size), given.device, train=False)

    def objective(self, trial: optuna.Trial) -> float:
        params = suggest(trial)
        best = 0.0
        for epoch, value in enumerate(self.train(params, trial.number)):
            if value > best:
                best = value
                (self.given.out / "new.pt").replace(self.given.out / f"{trial.number}.pt")
            trial.report(value, epoch)
            if epoch + 1 < self.given.epochs and trial.should_prune():
                self.note(trial.number, params, best, epoch + 1, "PRUNED")
                raise optuna.TrialPruned
        self.note(trial.number, params, best, self.given.epochs, "COMPLETE")
        return best

    def train(self, params: dict[str, Any], seed: int) -> Any:
        """Train, and yield the accuracy on val after each epoch, whose weights are then in new.pt."""
        device = self.given.device
        torch.manual_seed(1000 * self.given.seed + seed)
        batches = loader(self.splits["train"], changed(self.given.size, params), device, train=True)
        net = Net(self.given.weights, sum(self.sizes)).to(device).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(net.parameters(), params["lr"], weight_decay=params["weight_decay"], fused=True)
        steps, warm = self.given.epochs * len(batches), params["warmup"] * len(batches)
        rise = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=max(1, warm))
        fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - warm)
        schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], [warm]) if warm else fall
        scaler = torch.amp.GradScaler(device, enabled=device == "cuda")
        for _ in range(self.given.epochs):
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
            value = accuracy(net, self.val, self.sizes, device)
            torch.save(net.state_dict(), self.given.out / "new.pt")
            yield value

    def note(self, number: int, params: dict[str, Any], value: float, epochs: int, state: str) -> None:
        line = {"trial": number, "value": value, "epochs": epochs, "state": state, "params": params}
        with (self.given.out / "trials.jsonl").open("a") as file:
            file.write(json.dumps(line | {"seconds": time.time() - self.began}) + "\n")


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--root", type=Path, required=True)
    ask.add_argument("--weights", default="")
    ask.add_argument("--out", type=Path, required=True)
    ask.add_argument("--trials", type=int, default=50)
    ask.add_argument("--epochs", type=int, default=5)
    ask.add_argument("--size", type=int, default=48)
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--device", default="cpu")
    ask.add_argument("--began", type=float, default=0.0, help="when the clock started, in seconds since 1970")
    given = ask.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_float32_matmul_precision("high")
    study = optuna.create_study(
        storage=f"sqlite:///{given.out}/study.db",
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=given.seed),
        pruner=optuna.pruners.MedianPruner(),
    )
    study.optimize(Sweep(given).objective, n_trials=given.trials)


if __name__ == "__main__":
    main()
