"""Types of the definitions in an extension file, for type checkers; docs/reference/extensions.md has the contracts.

Nothing has to be imported from here. Authors who use mypy or pyright may write
`losses: dict[str, Loss] = {"poly": poly}`. Parameters after those shown become keys of the YAML.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import optuna
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

Row = Mapping[str, Any] | tuple[Any, ...]
"""One image of a layout: path, split and answers, by these names or in this order."""


class Metric(Protocol):
    """A metric of one category, on the images whose answer is known; sweep takes the mean over categories."""

    def __call__(self, probabilities: "NDArray[np.float32]", labels: "NDArray[np.int64]", /) -> float | None:
        """Probabilities [N, C], labels [N] in 0..C-1, N > 0 -> a finite figure, or None where it is undefined.

        With `several_answers`, it is called for each class of a category with several answers: [N], labels 0 or 1.
        """


class AllCategoriesMetric(Protocol):
    """A metric with `per_category` False: it covers all categories with one answer at once."""

    def __call__(
        self, probabilities: "Sequence[NDArray[np.float32]]", labels: "NDArray[np.int64]", /
    ) -> float | None:
        """K arrays of probabilities [N, C], labels [N, K] with -1 for a missing answer -> a figure."""


class Loss(Protocol):
    """A loss of one category, on the images whose answer is known."""

    def __call__(self, logits: "Tensor", labels: "Tensor", /, *keys: Any, **named: Any) -> "Tensor":
        """Logits [B, C] float32, labels [B] int64 in 0..C-1 -> [B], one loss per image, or their mean [].

        In a category with several answers the labels are flags 0 and 1, [B, C].
        """


class ImageAugmentation(Protocol):
    """A change to one image before it is cropped, on the host."""

    def __call__(
        self, image: "NDArray[np.uint8]", generator: "np.random.Generator", /, *keys: Any, **named: Any
    ) -> "NDArray[np.uint8]":
        """An image [H, W, 3], which may be changed in place -> one of the same size and type."""


class BatchAugmentation(Protocol):
    """A change to a batch on its device. The parameter name `images` marks it as one for batches."""

    def __call__(self, images: "Tensor", generator: "torch.Generator", *keys: Any, **named: Any) -> "Tensor":
        """Images [B, 3, H, W] float32 in 0..1, which may be changed in place -> the same shape, type and device."""


class Backbone(Protocol):
    """The product of a function or class in `models`: a torch.nn.Module that returns pooled features."""

    num_features: int

    def __call__(self, images: "Tensor", /) -> "Tensor":
        """Images [B, 3, H, W] float32, normalised -> features [B, num_features]."""

    def state_dict(self) -> dict[str, Any]:
        """Every torch.nn.Module has one."""


class Head(Protocol):
    """Makes the module that turns features [B, F] into the logits of all categories side by side, [B, sum C]."""

    def __call__(self, features: int, sizes: list[int], /, *keys: Any, **named: Any) -> "nn.Module":
        """F, and the number of classes of each category -> the module."""


class Layout(Protocol):
    """Reads a data set."""

    def __call__(self, root: Path, /, *keys: Any, **named: Any) -> Iterable[Row]:
        """The folder `data.root` -> one row per image."""


class Sampler(Protocol):
    """Makes the sampler, which proposes configurations."""

    def __call__(self, seed: int, /, *keys: Any, **named: Any) -> "optuna.samplers.BaseSampler":
        """A seed, drawn from `search.seed` for each trial -> a sampler that proposes the same for the same seed."""


class Pruner(Protocol):
    """Makes the pruner, which stops trials early."""

    def __call__(self, seed: int, /, *keys: Any, **named: Any) -> "optuna.pruners.BasePruner":
        """`search.seed` -> a pruner."""
