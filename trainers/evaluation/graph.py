"""A finished model as one self-contained module: decoded images in, probabilities out."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.data.table import spans
from trainers.evaluation.answers import divisors, logit_offset
from trainers.evaluation.model_file import Member
from trainers.evaluation.predict import windows
from trainers.evaluation.predictor import Predictor
from trainers.loading.cpu_transforms import Crop
from trainers.support.errors import UserError

WEIGHT = 2**15  # the integer weights of torch's 8-bit resize are below it


class Graph(nn.Module):
    """Images [N, H, W, 3] uint8, decoded as in `ImageFormat.as_python` -> each category's probabilities [N, C].

    Everything else is inside: the test-time views, the resize to the network's input, normalization, correction,
    temperature, and the mean over the networks. It computes in 32 bits. On a CPU, `Predictor` gives the same up to
    32-bit rounding. Raises UserError if the networks need images decoded to different sizes.
    """

    heat: Tensor

    def __init__(self, model: Predictor) -> None:
        super().__init__()
        members = model.ensemble.members
        levels = {one.notes.format.level(one.notes.images.input) for one in members}
        if len(levels) > 1:
            what = "its networks need images decoded to different sizes, which one program cannot supply"
            raise UserError(
                what, help="use sweep predict, or export the final model of one of its trials by naming its folder"
            )
        self.spans = spans(model.categories)
        pairs = zip(members, model.networks, strict=True)
        self.networks = nn.ModuleList(NetworkGraph(one, network.net.eval()) for one, network in pairs)
        heat = divisors(model.categories, model.ensemble.temperature)
        self.register_buffer("heat", torch.as_tensor(heat, dtype=torch.float32))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        pixels = images.permute(0, 3, 1, 2).float()
        judged = torch.stack([one(pixels) for one in self.networks]).sum(0) / self.heat
        parts = [(judged[:, span.classes], span.category.multi) for span in self.spans]
        return tuple(part.sigmoid() if multi else part.softmax(1) for part, multi in parts)


class NetworkGraph(nn.Module):
    """Pixels [N, 3, H, W] -> one network's contribution to the mean of logits, [N, sum C]."""

    scale: Tensor
    shift: Tensor
    offset: Tensor
    weight: Tensor

    def __init__(self, member: Member, net: nn.Module) -> None:
        super().__init__()
        notes = member.notes
        self.net, self.size = net, notes.images.input
        self.windows = windows(notes.format.level(self.size), notes.calibration.views)
        mean, std = (torch.tensor(one)[:, None, None] for one in (notes.images.mean, notes.images.std))
        offset = logit_offset(notes.asked, notes.counts, notes.calibration.tau)
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)
        self.register_buffer("offset", torch.as_tensor(offset, dtype=torch.float32))
        self.register_buffer("weight", member.share / torch.from_numpy(member.divisor))
        for pair in {pair for window in self.windows for pair in self._resizes(window)}:
            self.register_buffer(_name(*pair), weights(*pair))

    def forward(self, pixels: Tensor) -> Tensor:
        seen = torch.cat([self._seen(pixels, window) for window in self.windows])  # [views N, 3, *size]
        logits: Tensor = self.net(seen * self.scale + self.shift).float()
        looked = logits.reshape(len(self.windows), pixels.shape[0], -1).mean(0)
        return (looked - self.offset) * self.weight

    def _resizes(self, window: Crop) -> list[tuple[int, int]]:
        """Return the resizes of height and width, each from and to a number of pixels; none if the size stays."""
        left, top, right, bottom, _ = window
        if (bottom - top, right - left) == self.size:
            return []
        return [(bottom - top, self.size[0]), (right - left, self.size[1])]

    def _seen(self, pixels: Tensor, window: Crop) -> Tensor:
        """Return what a window shows, as `cpu_transforms.look` does: resized across, then down, each to 8 bits."""
        left, top, right, bottom, mirrored = window
        x: Tensor = pixels[:, :, top:bottom, left:right]
        if found := self._resizes(window):
            down, across = (self.get_buffer(_name(*pair)) for pair in found)
            x = torch.floor(down @ torch.floor(x @ across.T + 0.5) + 0.5)
        return x.flip(3) if mirrored else x


def _name(source: int, size: int) -> str:
    return f"resize_{source}_{size}"


def weights(source: int, size: int) -> Tensor:
    """Return the weight of each source pixel in each result, [size, source], rounded as in torch's 8-bit resize."""
    one = torch.eye(source, dtype=torch.float64)[None, None]  # each row is an image with one bright pixel
    found = F.interpolate(one, size=(source, size), mode="bilinear", antialias=True)[0, 0].T
    bits = next(n for n in range(23) if n == 22 or math.floor(0.5 + float(found.max()) * 2.0 ** (n + 1)) >= WEIGHT)
    return (torch.floor(found * 2.0**bits + 0.5) / 2.0**bits).float()
