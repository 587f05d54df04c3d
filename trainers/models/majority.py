"""The baseline without a network: every image gets the class frequencies of the training images."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

NAME = "majority"


class MajorityBaseline(nn.Module):
    """Images [B, 3, S, S] -> zeros [B, 1]. Its one parameter has no effect: optimizers need at least one."""

    num_features, num_classes = 1, 0

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        return 0 * self.nothing.expand(len(images), 1)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:  # noqa: ARG002 - timm's signature
        """Return a single layer, in timm's format."""
        return {"stem": r"^nothing", "blocks": []}


class Prior(nn.Module):
    """Zeros [B, 1] -> the log frequency of every class [B, sum C]; set by `set_prior`, not changed by training."""

    prior: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("prior", torch.zeros(classes))
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, zeros: Tensor) -> Tensor:
        return self.prior + self.nothing * zeros

    def set_prior(self, counts: Sequence[Sequence[int]], images: Sequence[int], multi: Sequence[bool]) -> None:
        """Set the frequencies from counts [K][C]; a class without images counts as half an image, not as zero.

        With several answers they are the log odds of each class, among the `images` [K] with an answer.
        """
        found = []
        for count, known, several in zip(counts, images, multi, strict=True):
            seen = torch.tensor(count, dtype=torch.float64).clamp_min(0.5)
            found.append((seen / (known - seen).clamp_min(0.5) if several else seen / seen.sum()).log())
        self.prior.copy_(torch.cat(found))


def majority(pretrained: bool = False, **arguments: Any) -> MajorityBaseline:  # noqa: ARG001 - it takes what timm hands on
    """Return the baseline; this is the entry point for timm."""
    return MajorityBaseline()
