"""Columns of categories of unequal size as one padded tensor, so that one operation handles all of them."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class Padding:
    """[B, N] -> [B, K, C]: the columns of K categories, each row padded to the C of the widest.

    columns [K] are the positions of each category among the N, in order. Neither direction waits for the device, and
    the gradient of a column is a copy. `real` [K, C] is false at padding; None if there is none.
    """

    def __init__(self, columns: Sequence[slice], device: torch.device) -> None:
        every = [range(part.start, part.stop) for part in columns]
        width = max(map(len, every))
        self.shape = len(every), width
        places = [width * k + n for k, part in enumerate(every) for n in range(len(part))]
        self._taken = torch.tensor([column for part in every for column in part], device=device)
        self._places = torch.tensor(places, device=device)
        real = [[n < len(part) for n in range(width)] for part in every]
        self.real = None if all(map(all, real)) else torch.tensor(real, device=device)

    def __call__(self, x: Tensor, fill: float) -> Tensor:
        """Return the columns of `x` [B, N], padded with `fill`, [B, K, C]."""
        taken = x if x.shape[1] == len(self._taken) else x.index_select(1, self._taken)
        if self.real is not None:
            taken = taken.new_full((len(x), math.prod(self.shape)), fill).index_copy(1, self._places, taken)
        return taken.view(len(x), *self.shape)
