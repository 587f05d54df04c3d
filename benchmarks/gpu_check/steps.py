"""Inside an epoch: nothing waits, streams do not race, devices see equal images, overflows do no harm."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainers.config import Augment, Recipe
from trainers.evaluation.tally import Tally
from trainers.loading.batches import Data, in_order
from trainers.loading.cpu_transforms import InputFormat
from trainers.loading.loader import AugmentationSource, Batch, Loader

from . import subjects
from .findings import Notes
from .place import Cpu
from .subjects import MEDIUM, STRONG

Part = str | dict[str, Any]  # a part of a recipe: a name, or a name with settings
SIGMOID, DECODER = {"name": "asymmetric", "over": "sigmoid"}, {"name": "query2label", "width": 64, "feed_forward": 64}
LOSSES: tuple[Part, ...] = ("cross_entropy", "focal", "asymmetric", SIGMOID, "dice", "logit_adjusted")
HEADS: tuple[Part, ...] = ("relu_logits", "logits_mlp", "category_mlp", "shared_mlp", DECODER)
FORMATS_MATTER = (
    {"optimizer": "adamw"},
    {"optimizer": "adam", "clip_norm": 1.0},
    {"optimizer": {"name": "adamw", "layer_decay": 0.8}},
    {"optimizer": {"name": "sgd", "lr": 0.01}, "clip_norm": 1.0},
    {"weight_averaging": "ema", "accumulate": 2},
)
OTHERS = (
    {"balanced_sampling": 0.5},
    {"freeze": {"epochs": 1}},
    {"augment": {"mixup": 0.2, "mixup_classes": "minority"}},
)
NETWORKS = (
    "vit_tiny_patch16_224",
    "convnext_atto",
    "mobilenetv3_small_050",
    "van_b0",
    "swin_tiny_patch4_window7_224",
)
SMALL = ("test_vit", "test_convnext")
IMAGES = 2e-2  # effect of rounded coordinates on normalised noise, in which neighbouring pixels differ by up to 4


# ----------------------------------------------------------------------------------------- waits
def waits(place: Cpu, notes: Notes) -> None:
    """Check that every loss, head, optimizer, average, format and augmentation trains without device waits."""
    tried, bad = list(cases(place)), []
    for train, resident in tried:
        try:
            loss = _some_steps(place, train, resident=resident)
        except (RuntimeError, TypeError, ValueError) as error:
            bad.append(f"{train}{' resident' if resident else ''}: {type(error).__name__} {str(error)[:200]}")
        else:
            bad += [] if np.isfinite(loss) or train.get("precision") == "fp16" else [f"{train}: the loss is {loss}"]
        place.forget()
    notes.promise("no step waits for the device, and none fails", not bad, cases=len(tried), bad=bad)


def cases(place: Cpu) -> Iterator[tuple[dict[str, Any], bool]]:
    """Yield the settings of each case, and True if its images are kept on the device."""
    for train in FORMATS_MATTER:
        yield from (({**train, "precision": precision}, False) for precision in place.formats)
    singles: list[dict[str, Any]] = [{"loss": loss} for loss in LOSSES] + [{"head": head} for head in HEADS]
    singles += [*OTHERS, {"augment": STRONG}]
    singles += [_network(name) for name in (NETWORKS if place.cuda else SMALL)]
    yield from ((train, False) for train in singles)
    yield {"augment": STRONG}, True


def _network(name: str) -> dict[str, Any]:
    sides = {"224": 224, "test_vit": 160}
    return {"backbone": name, "image_size": next((side for key, side in sides.items() if key in name), 64)}


def wanted(place: Cpu, train: dict[str, Any]) -> Recipe:
    """Return the recipe of a case."""
    side = train.get("image_size", 64 if place.cuda else 32)
    plain = {"backbone": "resnet18"} if place.cuda else {}
    return subjects.recipe(side, subjects.level(side), **{**plain, **train})


def _some_steps(place: Cpu, train: dict[str, Any], *, resident: bool) -> float:
    """Return the mean loss of four steps, after an epoch that allocates everything that is allocated once."""
    how = wanted(place, train)
    data = subjects.noise(32, 16, subjects.level(max(how.train.input_size)))
    with subjects.run(place, how, data) as run:
        run.lens.resident = resident
        run.fit(0)
        made = subjects.batches(run, 4)
        tally, total = Tally(data.categories, place.device), torch.zeros((), device=place.device)
        with place.no_waits():
            for batch in made:
                loss, logits = subjects.step(run, batch)
                tally.update(logits, batch.labels)
                total += loss
        return total.item() / 4


# ------------------------------------------------------------------------------------------ race
def race(place: Cpu, notes: Notes) -> None:
    """Check that prefetched batches equal single ones, while the caller's stream is late and memory is reused."""
    batch, count, side = (64, 400, 128) if place.cuda else (8, 12, 48)
    data, rng = subjects.noise(16 * batch, 0, side), np.random.default_rng(3)
    chunks = [rng.integers(16 * batch, size=batch) for _ in range(count)]
    drawing = _drawings(data, STRONG)
    lane = Loader(data, side - side // 8, _eye(place.device), hosted=False)
    single = next(drawing)
    wanted = [_alone(place, lane, rows, single) for rows in chunks]
    for resident in (False, True):
        lane = Loader(data, side - side // 8, _eye(place.device), hosted=False, resident=resident)
        found = torch.stack(list(_late(place, lane.training(chunks, next(drawing)), batch, side)))
        apart = (found - torch.stack(wanted)).abs().max().item()
        same = torch.allclose(found, torch.stack(wanted), rtol=1e-6, atol=1e-3)
        what = f"prefetched batches equal single ones{', resident' if resident else ''}"
        notes.promise(what, same, batches=count, apart=apart)
        place.forget()


def _alone(place: Cpu, lane: Loader, rows: np.ndarray, drawing: AugmentationSource) -> Tensor:
    """Return the digest of a batch that is made while nothing else runs."""
    (made,) = lane.training([rows], drawing)
    digest = _digest(made)
    place.wait()
    return digest


def _late(place: Cpu, made: Iterator[Batch], batch: int, side: int) -> Iterator[Tensor]:
    """Yield the digest of each batch, computed late, while freed memory is filled with other values."""
    for number, one in enumerate(made):
        place.lag(number % 3)
        yield _digest(one)
        torch.full((batch, 3, side, side), float(number), device=place.device)


def _digest(batch: Batch) -> Tensor:
    images = batch.images.double()
    return torch.stack([images.sum(), images.square().sum(), batch.labels.double().sum()])


def _eye(device: torch.device) -> InputFormat:
    mean, std = torch.full((3,), 0.5, device=device), torch.full((3,), 0.25, device=device)
    return InputFormat(device, mean, std, torch.channels_last)


def _drawings(data: Data, augment: dict[str, Any]) -> Iterator[AugmentationSource]:
    """Yield the same random numbers each time."""
    while True:
        rare = np.zeros(len(data.table.rows), dtype=bool)
        yield AugmentationSource(Augment.model_validate(augment), np.random.default_rng(7), rare)


# ------------------------------------------------------------------------------------------ feed
def feed(place: Cpu, notes: Notes) -> None:
    """Check that the device's images equal the CPU's for every augmentation, also in TF32, which runs switch on."""
    data = subjects.noise(96, 0, 96)
    changes: dict[str, dict[str, Any]] = {
        "plain": {"horizontal_flip": 0.5},
        "medium": MEDIUM,
        "turned": {"rotation": 20, "random_shift": 0.125},
    }
    changes |= {"policy": {"rand_augment": {}}, "strong": STRONG}
    for precision in ("highest", "high"):
        torch.set_float32_matmul_precision(precision)
        apart = {
            f"{name}{' resident' if resident else ''}": _apart(place, data, augment, resident)
            for name, augment in changes.items()
            for resident in (False, True)
        }
        worst = max(apart.values())
        notes.promise(
            f"the device's images equal the CPU's, matmul {precision}", worst < IMAGES, worst=worst, apart=apart
        )


def _apart(place: Cpu, data: Data, augment: dict[str, Any], resident: bool) -> float:
    """Return the largest difference of images, labels and shares."""
    lanes = (torch.device("cpu"), False), (place.device, resident)
    rows, drawings = in_order(np.arange(96), 32), _drawings(data, augment)
    ours, theirs = (
        [
            _seen(one)
            for one in Loader(data, 64, _eye(device), hosted=False, resident=kept).training(rows, next(drawings))
        ]
        for device, kept in lanes
    )
    return max(
        (a - b).abs().max().item()
        for one, other in zip(ours, theirs, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def _seen(batch: Batch) -> list[Tensor]:
    parts = (batch.images, batch.labels, batch.own, batch.other)
    return [part.detach().cpu().float().clone() for part in parts if part is not None]


# -------------------------------------------------------------------------------------- overflow
def overflow(place: Cpu, notes: Notes) -> None:
    """Check that in fp16 a first step that overflows changes nothing, and the next one is an ordinary first step."""
    for optimizer in ("sgd", "adamw"):
        for clip in (None, 1.0):
            moved, moment, after = _overflown(place, optimizer, clip)
            holds = moved == 0 and moment == 0 and 0 < after < 1
            what = f"a step that overflows does no harm: {optimizer}, clip {clip}"
            notes.promise(what, holds, moved=moved, largest_moment=moment, moved_by_the_next=after)
    thaw = {"epochs": 1, "gradual_epochs": 2}
    how = subjects.recipe(32, 64, epochs=4, freeze=thaw, optimizer={"name": "sgd", "lr": 0.01})
    with subjects.run(place, how, subjects.noise(32, 16, 64)) as run:
        try:
            losses: list[float] | str = [run.fit(index)[0].loss for index in range(4)]
        except (RuntimeError, TypeError) as error:
            losses = f"{type(error).__name__}: {error}"
    notes.promise("sgd unfreezes layer by layer", not isinstance(losses, str), losses=losses)


def _overflown(place: Cpu, optimizer: str, clip: float | None) -> tuple[float, float, float]:
    """Return how far weights moved in a step that overflowed, its largest moment, and how far in the next step."""
    filled = [torch.full((1 << 18,), 1e30, device=place.device) for _ in range(50)]
    del filled  # memory that is allocated but not initialised will contain these values
    asked = {"optimizer": {"name": optimizer, "lr": 0.01}, "precision": "fp16", "clip_norm": clip}
    with subjects.run(place, subjects.recipe(32, 64, **asked), subjects.noise(32, 16, 64)) as run:
        run.net.train()
        moved = []
        for scale in (2.0**60, 1.0):
            run.scaler = torch.amp.GradScaler(place.device.type, init_scale=scale)
            before = [p.detach().clone() for p in run.net.parameters()]
            for batch in subjects.batches(run, 1):
                subjects.step(run, batch)
            pairs = zip(run.net.parameters(), before, strict=True)
            moved.append(max((p - q).abs().max().item() for p, q in pairs))
            if scale > 1:
                kept = [t for state in run.optimizer.state.values() for key, t in state.items() if key != "step"]
                moment = max((t.abs().max().item() for t in kept if isinstance(t, Tensor)), default=0.0)
        return moved[0], moment, moved[1]
