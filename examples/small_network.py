"""A small network in plain torch: four convolutions that each halve the image, and the mean over all positions."""

from itertools import pairwise

from torch import Tensor, nn


class SmallNetwork(nn.Module):
    """A backbone that turns images [B, 3, H, W] into features [B, num_features]."""

    def __init__(self, width: int = 32, dropout: float = 0.0) -> None:
        super().__init__()
        sizes = (3, width, 2 * width, 4 * width, 4 * width)
        self.layers = nn.Sequential(*(self._layer(*pair) for pair in pairwise(sizes)))
        self.dropout = nn.Dropout(dropout)
        self.num_features = sizes[-1]

    @staticmethod
    def _layer(before: int, after: int) -> nn.Sequential:
        convolution = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        return self.dropout(self.layers(images).mean((2, 3)))


models = {"small_network": SmallNetwork}
