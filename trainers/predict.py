"""Looking at a split with a network: evaluation during training, and predictions of a finished model."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainers import augment, losses, metrics, posterior
from trainers.checkpoint import load_weights
from trainers.computing import autocast, prepare
from trainers.config import Recipe, Scores, TrainConfig, Views
from trainers.data.batches import Data, Feed, in_order
from trainers.models import network
from trainers.models.network import Network


class Lens:
    """How images reach a network: a feed, the input's size and its normalization on the device."""

    def __init__(self, config: TrainConfig, data: Data, net: Network, device: torch.device) -> None:
        self.config, self.device, self.data = config, device, data
        self.feed = Feed(data, config.image_size, device)
        mean, std = network.normalization(config, net)
        self.mean, self.std = torch.tensor(mean, device=device), torch.tensor(std, device=device)
        last = network.channels_last(config, net.backbone)
        self.layout = torch.channels_last if last else torch.contiguous_format

    def images(self, rows: Sequence[int] | np.ndarray) -> Iterator[Tensor]:
        """The images of `rows` as evaluation sees them, batch by batch, [B, 3, S, S] on the device."""
        for images in self.feed.batches(in_order(rows, 2 * self.config.batch_size)):
            yield self._laid(augment.plain(images, self.config.image_size, self.mean, self.std))

    @torch.inference_mode()
    def logits(self, net: Network, rows: Sequence[int], views: Views | None = None) -> Tensor:
        """Logits of `rows` in their order, without augmentation, [N, sum C] float32 on the device.

        With `views`, the mean over the views of each image.
        """
        net.eval()
        parts = []
        for images in self.feed.batches(in_order(rows, 2 * self.config.batch_size)):
            seen = windows(images, views or Views())
            parts.append(torch.stack([self._one(net, view) for view in seen]).mean(0))
        return torch.cat(parts)

    def _one(self, net: Network, images: Tensor) -> Tensor:
        x = augment.plain(images, self.config.image_size, self.mean, self.std)
        with autocast(self.config, self.device):
            logits: Tensor = net(self._laid(x))
        return logits.float()

    def _laid(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=self.layout)


def windows(images: Tensor, views: Views) -> list[Tensor]:
    """What each view sees of the images [B, 3, S, S]: windows of S / scale, mirrored as well with `flip`."""
    found = [part for scale in views.scales for part in _windows(images, scale, views.crops)]
    return [*found, *(part.flip(3) for part in found)] if views.flip else found


def _windows(images: Tensor, scale: float, crops: int) -> list[Tensor]:
    side = images.shape[-1]
    inner = round(side / scale)
    rest = side - inner
    if not rest:
        return [images]
    corners = [(rest // 2, rest // 2), (0, 0), (0, rest), (rest, 0), (rest, rest)]
    return [images[:, :, top : top + inner, left : left + inner] for top, left in corners[:crops]]


def shift(data: Data, fit: Sequence[str], tau: float) -> np.ndarray:
    """What posterior correction takes off the logits of a model fitted on the splits `fit`, [sum C] float32."""
    return tau * posterior.log_prior(data.counts(data.table.indices(*fit)))


def look(recipe: Recipe, data: Data, weights: Path, *, device: str = "cpu") -> Scores:
    """Val through the recipe's test-time augmentation and posterior correction, by a model fitted on train.

    A fitted correction is fitted to these logits, and cross-fitted.
    """
    train = recipe.train
    logits = predict(recipe, data, weights, split="val", device=device, views=train.tta)
    loss = scores(recipe, data, logits, split="val", fit=("train",)).loss
    prior = posterior.log_prior(data.counts(data.table.indices("train")))
    labels = data.labels(data.table.indices("val"))
    fitting = posterior.Fitting(logits, labels, prior, data.names, data.sizes)
    return fitting.fit(recipe.goal, loss).scores if train.posterior.fit else fitting.at(train.posterior.tau, loss)


def scores(recipe: Recipe, data: Data, logits: np.ndarray, *, split: str, fit: Sequence[str]) -> Scores:
    """Every metric of `logits` [N, sum C] on a split whose rows have labels, in the order of its rows.

    The loss is the recipe's, without label smoothing; its class weights come from the splits `fit`.
    """
    labels = data.labels(data.table.indices(split))
    counts = data.counts(data.table.indices(*fit))
    judge = losses.build(recipe.train.loss, data.names, counts, torch.device("cpu"), smooth=False)
    loss = judge(torch.from_numpy(logits), torch.from_numpy(labels)).mean().item()
    return metrics.scores(logits, labels, data.table.categories, loss=loss)


def predict(
    recipe: Recipe, data: Data, weights: Path, *, split: str, device: str = "cpu", views: Views | None = None
) -> np.ndarray:
    """Logits [N, sum C] float32 of a split in the order of its rows, by the model in a safetensors file.

    With `views`, the mean over the views of each image. Raises EnvironmentFault when the file cannot be read or does
    not fit the recipe.
    """
    where = torch.device(device)
    prepare(where)
    net = network.restored(recipe.train, data.sizes, load_weights(weights), weights).to(where)
    rows = data.table.indices(split)
    if not rows:
        return np.zeros((0, sum(data.sizes)), dtype=np.float32)
    found: np.ndarray = Lens(recipe.train, data, net, where).logits(net, rows, views).cpu().numpy()
    return found
