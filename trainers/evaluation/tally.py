"""Batch-by-batch counts of predictions, on the device that makes them, without waiting for it."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from trainers.data.table import Category, spans
from trainers.epoch import Scores
from trainers.evaluation.metrics import HITS, PREDICTED, TRUE, Columns, average_precision, scores_of
from trainers.support.device import send

RANKED = 10_000_000  # logits kept for average precision: 50 MB on the device, 3 s to sort


class Tally:
    """The counts of each class as true, predicted, and both, [3, sum C], accumulated batch by batch.

    Every metric except average precision is a function of these counts, whose size grows with the number of classes,
    not with its square. For average precision, the logits of categories with several answers are kept: of all images
    or, of more than RANKED logits in `images` images, of every second, every third, ... image. `missing`: some
    answers are missing and are ignored.
    """

    def __init__(
        self,
        categories: Sequence[Category],
        device: torch.device | str = "cpu",
        *,
        missing: bool = False,
        images: int = 0,
    ) -> None:
        self.columns, self.spans, self.missing = Columns.of(categories), spans(categories), missing
        here, columns = torch.device(device), self.columns
        self.first, self.label, self.classes, self.flags = (
            send(torch.from_numpy(each), here)
            for each in (columns.starts[columns.single], columns.labels, columns.classes, columns.flags)
        )
        self.width, self.several = sum(columns.sizes), len(columns.classes) > 0
        self.counts = torch.zeros(3 * self.width, dtype=torch.int64, device=here)
        self.known = torch.zeros(len(columns.sizes), dtype=torch.int64, device=here)  # images with an answer
        self.ranked: list[tuple[Tensor, Tensor]] = []  # logits float32 and flags int8, [B / every, M] each
        self.every = max(1, math.ceil(images * len(columns.classes) / RANKED))
        self.images = 0

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: logits [B, sum C] float, labels [B, D] int64. Does not wait for the device."""
        if len(self.columns.single):
            parts = torch.split(logits, self.columns.sizes, dim=1)
            predicted = self.first + torch.stack([parts[k].argmax(1) for k in self.columns.single], dim=1)
            self._count(predicted, labels.index_select(1, self.label) if self.several else labels)
        if self.several:
            ranked = logits.index_select(1, self.classes).float(), labels.index_select(1, self.flags).to(torch.int8)
            self._count_flags(*ranked)
            self._keep(*ranked)
        if self.missing:
            self.known += torch.stack([(labels[:, span.labels] >= 0).any(1).sum() for span in self.spans])
        self.images += len(labels)

    def _keep(self, logits: Tensor, flags: Tensor) -> None:
        """Keep the logits and flags of this batch's share of every n-th image."""
        mine = slice(-self.images % self.every, None, self.every)
        self.ranked.append((logits[mine].clone(), flags[mine].clone()))  # a view would keep the whole batch

    def _count(self, predicted: Tensor, labels: Tensor) -> None:
        """Count answers, numbered across all classes, and labels, [B, S] each."""
        true, ones = self.first + labels, torch.ones_like(labels)
        hits = (true == predicted).long()
        if self.missing:
            true, ones = self.first + labels.clamp_min(0), (labels >= 0).long()
            hits = hits * ones
        for row, where, what in ((TRUE, true, ones), (PREDICTED, predicted, ones), (HITS, true, hits)):
            self.counts.index_add_(0, where.flatten() + row * self.width, what.flatten())

    def _count_flags(self, logits: Tensor, flags: Tensor) -> None:
        predicted, true = (logits > 0) & (flags >= 0), flags > 0
        found = torch.stack([true.sum(0), predicted.sum(0), (true & predicted).sum(0)])
        self.counts.view(3, -1).index_add_(1, self.classes, found)

    def scores(self, loss: float) -> Scores:
        """Return every metric of the split; loss is the mean over its images."""
        known = self.known.tolist() if self.missing and self.known.min() < self.images else None
        precision = None
        if self.ranked:
            logits, flags = (torch.cat(parts).cpu().numpy() for parts in zip(*self.ranked, strict=True))
            precision = average_precision(logits, flags)
        counts = self.counts.cpu().numpy().reshape(3, -1)
        return scores_of(counts, self.columns, loss, precision=precision, known=known)
