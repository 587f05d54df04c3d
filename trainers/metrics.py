"""How good predictions are, over a whole split. Counts stay on the device until they are asked for."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from trainers.config import Scores
from trainers.data.rows import Category


class Confusion:
    """Counts of (true class, predicted class) in each category, [K] of [C, C], gathered batch by batch."""

    def __init__(self, sizes: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.sizes = list(sizes)
        squares = torch.tensor([0, *(size**2 for size in sizes)])
        self.starts = squares.cumsum(0)[:-1].to(device)  # [K]
        self.widths = torch.tensor(self.sizes, device=device)  # [K]
        self.counts = torch.zeros(int(squares.sum()), dtype=torch.int64, device=device)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: logits [B, sum C] float, labels [B, K] int64. Does not wait for the device."""
        predicted = torch.stack([part.argmax(1) for part in torch.split(logits, self.sizes, dim=1)], dim=1)  # [B, K]
        cells = (self.starts + labels * self.widths + predicted).flatten()
        self.counts.index_add_(0, cells, torch.ones_like(cells))

    def matrices(self) -> list[np.ndarray]:
        """[K] of int64 [C, C]: rows are true classes, columns predicted ones."""
        return _matrices(self.counts.cpu().numpy(), self.sizes)

    def scores(self, names: Sequence[str], loss: float) -> Scores:
        """Every metric of the split; names [K] are the categories', loss is the mean over its images."""
        return scores_of(self.counts.cpu().numpy(), names, self.sizes, loss)


def cells(logits: np.ndarray, labels: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """The cell of the flat counts that each answer falls into, [N, K] int64; logits [N, sum C], labels [N, K]."""
    parts = np.split(logits, np.cumsum(sizes)[:-1], axis=1)
    predicted = np.stack([part.argmax(1) for part in parts], axis=1)
    starts = np.cumsum([0, *(size**2 for size in sizes)])[:-1]
    found: np.ndarray = starts + labels * np.asarray(sizes) + predicted
    return found


def scores_of(counts: np.ndarray, names: Sequence[str], sizes: Sequence[int], loss: float) -> Scores:
    """Every metric of flat confusion counts: the categories' matrices [C, C] row by row, one after another."""
    return _scores(_matrices(counts, sizes), names, loss)


def _matrices(counts: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    ends = np.cumsum([size**2 for size in sizes])
    return [counts[end - size**2 : end].reshape(size, size) for size, end in zip(sizes, ends, strict=True)]


def scores(logits: np.ndarray, labels: np.ndarray, categories: Sequence[Category], *, loss: float) -> Scores:
    """Every metric of predictions that lie in memory: logits [N, sum C] float, labels [N, K] int.

    The loss is passed through: it belongs to an objective, which predictions do not know.
    """
    sizes = [len(category.classes) for category in categories]
    counts = np.bincount(cells(logits, labels, sizes).ravel(), minlength=sum(size**2 for size in sizes))
    return scores_of(counts, [category.name for category in categories], sizes, loss)


def _scores(matrices: Sequence[np.ndarray], names: Sequence[str], loss: float) -> Scores:
    right = [np.diag(matrix) for matrix in matrices]
    images = [int(matrix.sum()) for matrix in matrices]
    true = np.concatenate([matrix.sum(1) for matrix in matrices])
    predicted = np.concatenate([matrix.sum(0) for matrix in matrices])
    hits = np.concatenate(right)
    present = true > 0  # a class without an image in the split is left out of every mean
    recall = hits[present] / true[present]
    precision = hits[present] / np.maximum(predicted[present], 1)
    f1 = 2 * hits[present] / (true[present] + predicted[present])
    return Scores(
        loss=loss,
        overall_accuracy=_ratio(int(hits.sum()), sum(images)),
        mean_class_accuracy=float(recall.mean()) if len(recall) else 0.0,
        macro_precision=float(precision.mean()) if len(recall) else 0.0,
        macro_recall=float(recall.mean()) if len(recall) else 0.0,
        macro_f1=float(f1.mean()) if len(recall) else 0.0,
        category_accuracy={
            name: _ratio(int(hit.sum()), n) for name, hit, n in zip(names, right, images, strict=True)
        },
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
