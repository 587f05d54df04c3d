"""Network predictions on a split: for evaluation during training, and from a finished model."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainers.config import Recipe, TrainConfig, Views
from trainers.data.table import spans
from trainers.epoch import Corrected, Look, Scores
from trainers.evaluation import field_metrics, metrics, temperature
from trainers.evaluation.logit_adjustment import Fitting
from trainers.loading.batches import Data, in_order
from trainers.loading.cpu_transforms import Crop, InputFormat
from trainers.loading.custom_augmentations import changes_images
from trainers.loading.loader import Loader
from trainers.loading.transforms import Size, pair
from trainers.metrics.definitions import STANDARD
from trainers.models import network
from trainers.models.network import Network
from trainers.optim import frequency, losses
from trainers.support.checkpoint import load_weights
from trainers.support.device import autocast, no_room, prepare, release
from trainers.support.position import Cursor, Position

AT_ONCE = 4  # training batches that evaluation first tries on a GPU: half the memory of one with gradients
GPU_PIXELS = 2**22  # and at least this many, up to 256 images: with fewer, the GPU waits for the host's launches
CPU_PIXELS = 2**19  # evaluated at once on a CPU, 16 to 128 images: more would not stay in its cache


class Evaluator:
    """The path of images to a network: its input format, the feeds that supply it, and the batch size."""

    def __init__(self, config: TrainConfig, data: Data, net: Network, device: torch.device) -> None:
        self.config, self.device, self.data = config, device, data
        mean, std = network.normalization(config, net)
        last = network.channels_last(config, net.backbone)
        layout = torch.channels_last if last else torch.contiguous_format
        self.eye = InputFormat(device, torch.tensor(mean, device=device), torch.tensor(std, device=device), layout)
        self.hosted = device.type == "cpu"
        self.cursor = Cursor()
        self.resident = False  # true if images may stay on the device, which this process then has to itself
        self.batch = _at_once(config, hosted=self.hosted)

    def feed(self, size: Size, *, training: bool = False) -> Loader:
        """Return a loader of batches for inputs of that size."""
        augment = self.config.augment
        window = augment.smallest_window if training else 1.0
        resident = self.resident and not (training and changes_images(augment))
        return Loader(self.data, size, self.eye, hosted=self.hosted, resident=resident, window=window)

    def images(self, rows: Sequence[int] | np.ndarray, at_once: int | None = None) -> Iterator[Tensor]:
        """Yield the images of `rows` as evaluation sees them, [B, 3, H, W] on the device, in batches of `at_once`,
        by default twice the training batch.
        """
        feed = self.feed(self.config.input_size)
        yield from feed.plain(in_order(rows, at_once or 2 * self.config.batch_size), windows(feed.source, Views()))

    def logits(self, net: Network, rows: Sequence[int], views: Views | None = None) -> Tensor:
        """Return the logits of `rows` in their order, without augmentation, [N, sum C] float32 on the device.

        With `views`, they are the mean over the views of each image. If the images do not fit on a GPU at once, half
        as many are tried, down to one.
        """
        net.eval()
        while True:
            try:
                return self._logits(net, rows, views or Views())
            except RuntimeError as error:
                if self.batch == 1 or not no_room(error):
                    raise
            self.batch //= 2
            release()

    @torch.inference_mode()
    def _logits(self, net: Network, rows: Sequence[int], views: Views) -> Tensor:
        feed = self.feed(self.config.input_size)
        asked, chunks = windows(feed.source, views), self._chunks(rows)
        images = feed.plain(chunks, asked)
        found = []
        for done, _ in enumerate(chunks, 1):
            found.append(torch.stack([self.forward(net, next(images)) for _ in asked]).mean(0))
            self.cursor.at = Position("val", done, len(chunks))
        return torch.cat(found)[: len(rows)]

    def _chunks(self, rows: Sequence[int]) -> list[np.ndarray]:
        """Return the rows in batches; a GPU, which prepares for each new shape, gets the last one filled up."""
        chunks = in_order(rows, self.batch)
        if not self.hosted and len(chunks) > 1:
            chunks[-1] = np.resize(chunks[-1], self.batch)
        return chunks

    def forward(self, net: Network, images: Tensor) -> Tensor:
        """Return the logits of a batch, in 32 bits."""
        with autocast(self.config, self.device):
            logits: Tensor = net(images)
        return logits.float()


def _at_once(config: TrainConfig, *, hosted: bool) -> int:
    """Return the number of images that evaluation first tries at once."""
    pixels = math.prod(config.input_size)
    if hosted:
        return min(128, max(16, CPU_PIXELS // pixels))
    return max(AT_ONCE * config.batch_size, min(256, GPU_PIXELS // pixels))


def windows(size: Size, views: Views) -> list[Crop]:
    """Return the windows of each view of images of that size: size / scale, and each mirrored with `flip`."""
    found = [window for scale in views.scales for window in _windows(*pair(size), scale, views.crops)]
    return found + [(*window[:4], True) for window in found] if views.flip else found


def _windows(height: int, width: int, scale: float, crops: int) -> list[Crop]:
    wide, high = round(width / scale), round(height / scale)
    x, y = width - wide, height - high
    if not x and not y:
        return [(0, 0, width, height, False)]
    corners = [(x // 2, y // 2), (0, 0), (x, 0), (0, y), (x, y)]
    return [(left, top, left + wide, top + high, False) for left, top in corners[:crops]]


def fitting(
    recipe: Recipe, data: Data, logits: np.ndarray, labels: np.ndarray, counts: Sequence[Sequence[int]]
) -> Fitting:
    """Return the fit of correction and thresholds to predictions on val, [N, sum C], with labels [N, D].

    counts [K][C]: the images of each class that the model was fitted on.
    """
    thresholds, prior = recipe.train.thresholds, frequency.log_prior(counts, data.multi)
    least = thresholds.min_images if thresholds.fit else None
    return Fitting(logits, labels, prior, data.categories, least=least, further=recipe.further)


def fitted_thresholds(config: TrainConfig, data: Data, fit: Fitting) -> dict[str, tuple[float, ...]] | None:
    """Return the thresholds as probabilities, by category with several answers; None if none are fitted."""
    if not config.thresholds.fit or not any(data.multi):
        return None
    shares = (1 / (1 + np.exp(-fit.thresholds.astype(np.float64)))).tolist()
    return {s.category.name: tuple(shares[s.classes]) for s in spans(data.categories) if s.category.multi}


@dataclass(frozen=True)
class Validation:
    """The result of a network on val: scores and logits [N, sum C], both corrected if the recipe requests it."""

    val: Scores | None = None  # None if there is no val
    plain: Scores | None = None  # the scores before correction, if any
    corrected: dict[str, Corrected] = field(default_factory=dict)
    logits: np.ndarray | None = None
    thresholds: dict[str, tuple[float, ...]] | None = None  # as fitted
    temperature: dict[str, float] = field(default_factory=dict)
    raw: np.ndarray | None = None  # logits as they come from the network


def judged(
    recipe: Recipe, data: Data, logits: np.ndarray, labels: np.ndarray, counts: Sequence[Sequence[int]], loss: float
) -> Validation:
    """Evaluate predictions on val, [N, sum C], with labels [N, D]; `loss` is passed through to the scores.

    counts [K][C]: the images of each class that the model was fitted on.
    """
    asked, metric = recipe.train.posthoc_logit_adjustment, recipe.metric
    fitted = fitting(recipe, data, logits, labels, counts)
    fit = fitted.as_asked(asked, metric, loss)
    counted = asked.fit or metric in STANDARD  # a fit of any other would compute it hundreds of times
    found = Validation(
        val=fit.scores,
        corrected=fitted.corrected(*(metric,) * counted),
        logits=fit.logits,
        thresholds=fitted_thresholds(recipe.train, data, fitted),
        temperature=temperature.fit(fit.logits, logits, labels, data.categories),
        raw=logits,
    )
    if asked.fit or asked.tau or found.thresholds:
        plain = metrics.scores(logits, labels, data.categories, loss=loss)
        return replace(found, plain=field_metrics.added(plain, recipe.further, logits, labels, data.categories))
    return found


def evaluate_tta(recipe: Recipe, data: Data, weights: Path, *, device: str = "cpu") -> Look:
    """Evaluate a model fitted on train on val, with the recipe's test-time augmentation and posterior correction.

    A fitted correction and thresholds are fitted to these logits, and the scores are cross-fitted.
    """
    logits = predict(recipe, data, weights, split="val", device=device, views=recipe.train.tta)
    return look(recipe, data, logits, fit="train")


def look(recipe: Recipe, data: Data, logits: np.ndarray, *, fit: str) -> Look:
    """Do the same with existing logits [N, sum C]; `fit` is the split that the class frequencies come from."""
    train = recipe.train
    loss = scores(recipe, data, logits, split="val", fit=(fit,)).loss
    labels, counts = data.labels(data.table.indices("val")), data.counts(data.table.indices(fit))
    found = fitting(recipe, data, logits, labels, counts)
    thresholds = fitted_thresholds(train, data, found)
    asked = train.posthoc_logit_adjustment
    crossed = found.as_asked(asked, recipe.metric, loss)
    heat = temperature.fit(crossed.logits, logits, labels, data.categories)
    tau = crossed.tau if asked.fit else None
    return Look(**crossed.scores.model_dump(), tau=tau, thresholds=thresholds, temperature=heat)


def scores(
    recipe: Recipe,
    data: Data,
    logits: np.ndarray,
    *,
    split: str,
    fit: Sequence[str],
    probable: np.ndarray | None = None,
) -> Scores:
    """Return every metric of `logits` [N, sum C] on a split, in the order of its rows; missing labels are ignored.

    The loss is the recipe's, without label smoothing; its class weights come from the splits `fit`. `probable`: the
    logits for probabilities, if thresholds have been subtracted from `logits`.
    """
    rows = data.table.indices(split)
    labels, counts = data.labels(rows), data.counts(data.table.indices(*fit))
    judge = losses.build(
        recipe.train.loss,
        data.names,
        counts,
        torch.device("cpu"),
        multi=data.multi,
        known=data.known_to(recipe.train.loss, rows),
        smooth=False,
    )
    loss = judge(torch.from_numpy(logits), torch.from_numpy(labels)).mean().item()
    found = metrics.scores(logits, labels, data.table.categories, loss=loss)
    probable = logits if probable is None else probable
    return field_metrics.added(found, recipe.further, probable, labels, data.table.categories)


def predict(
    recipe: Recipe, data: Data, weights: Path, *, split: str, device: str = "cpu", views: Views | None = None
) -> np.ndarray:
    """Return the logits [N, sum C] float32 of a split, in the order of its rows, by the model in a safetensors file.

    With `views`, they are the mean over the views of each image. Raises EnvironmentFault if the file cannot be read
    or does not fit the recipe.
    """
    where = torch.device(device)
    prepare(where)
    net = network.restored(recipe.train, data.sizes, load_weights(weights), weights).to(where)
    rows = data.table.indices(split)
    if not rows:
        return np.zeros((0, sum(data.sizes)), dtype=np.float32)
    found: np.ndarray = Evaluator(recipe.train, data, net, where).logits(net, rows, views).cpu().numpy()
    return found
