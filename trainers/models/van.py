"""VAN (Guo et al. 2022, "Visual Attention Network"): four backbones that timm does not have.

The attributes are named after the keys of the published checkpoints, so that those files load as they are.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import DropPath, LayerNorm2d
from timm.models import build_model_with_cfg, generate_default_cfgs
from torch import Tensor, nn

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
default_cfgs = generate_default_cfgs(
    {
        f"van_b{size}": {
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "crop_pct": 0.9,
            "interpolation": "bicubic",
            "first_conv": "patch_embed1.proj",
            "classifier": "head",
            "license": "apache-2.0",
            **IMAGENET,
        }
        for size in range(4)
    }
)
"""timm looks for this name; no file on the hub is named, because none is published there."""


def _depthwise(width: int, kernel: int, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel - 1) // 2
    return nn.Conv2d(width, width, kernel, padding=padding, dilation=dilation, groups=width)


class LargeKernel(nn.Module):
    """Large kernel attention (section 3.1): a 21x21 depthwise convolution, in three cheap parts, times its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv0 = _depthwise(width, 5)
        self.conv_spatial = _depthwise(width, 7, dilation=3)
        self.conv1 = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.conv1(self.conv_spatial(self.conv0(x)))
        return x * gate


class Attention(nn.Module):
    """[B, C, H, W] -> the same: a projection, GELU, large kernel attention, a projection, plus the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj_1, self.proj_2 = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.activation = nn.GELU()
        self.spatial_gating_unit = LargeKernel(width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.proj_2(self.spatial_gating_unit(self.activation(self.proj_1(x))))
        return x + y


class Depthwise(nn.Module):
    """A depthwise 3x3 convolution, nested one level deeper so that its key matches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = _depthwise(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dwconv(x)
        return y


class FeedForward(nn.Module):
    """[B, C, H, W] -> the same, through `hidden` channels that see their neighbours."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(width, hidden, 1), nn.Conv2d(hidden, width, 1)
        self.dwconv, self.act = Depthwise(hidden), nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(self.act(self.dwconv(self.fc1(x))))
        return y


class Block(nn.Module):
    """Attention and a feed-forward part, each after a batch norm, scaled per channel and added to the input."""

    def __init__(self, width: int, ratio: int, drop_path: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.attn, self.mlp = Attention(width), FeedForward(width, width * ratio)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.layer_scale_1 = nn.Parameter(torch.full((width,), 0.01))
        self.layer_scale_2 = nn.Parameter(torch.full((width,), 0.01))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.layer_scale_1[:, None, None] * self.attn(self.norm1(x)))
        y: Tensor = x + self.drop_path(self.layer_scale_2[:, None, None] * self.mlp(self.norm2(x)))
        return y


class Patches(nn.Module):
    """Overlapping patches: a strided convolution and a batch norm."""

    def __init__(self, before: int, after: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.proj(x))
        return y


class VAN(nn.Module):
    """Images [B, 3, S, S] -> class scores [B, num_classes]; features when num_classes is 0.

    global_pool is "avg", or "" for the last map [B, C, S / 32, S / 32] as it is. Stage s is patch_embed<s>,
    block<s> and norm<s>.
    """

    def __init__(
        self,
        dims: Sequence[int],
        depths: Sequence[int],
        ratios: Sequence[int] = (8, 8, 4, 4),
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes, self.global_pool = num_classes, global_pool
        self.num_features = self.head_hidden_size = dims[-1]
        rates = torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist()
        for stage, (width, depth, ratio) in enumerate(zip(dims, depths, ratios, strict=True), start=1):
            kernel, stride, before = (7, 4, in_chans) if stage == 1 else (3, 2, dims[stage - 2])
            first = sum(depths[: stage - 1])
            blocks = (Block(width, ratio, rate) for rate in rates[first : first + depth])
            self.add_module(f"patch_embed{stage}", Patches(before, width, kernel, stride))
            self.add_module(f"block{stage}", nn.ModuleList(blocks))
            self.add_module(f"norm{stage}", LayerNorm2d(width, eps=1e-6))
        self.head = _classifier(dims[-1], num_classes)
        self.apply(_draw)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last map, normed: [B, C, S / 32, S / 32]."""
        for stage in range(1, 5):
            x = self.get_submodule(f"patch_embed{stage}")(x)
            for block in self.get_submodule(f"block{stage}").children():
                x = block(x)
            x = self.get_submodule(f"norm{stage}")(x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the class scores of a map, or with `pre_logits` the classifier's input."""
        x = x.mean((2, 3)) if self.global_pool == "avg" else x
        y: Tensor = x if pre_logits else self.head(x)
        return y

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier; 0 classes means none."""
        self.num_classes = num_classes
        self.global_pool = self.global_pool if global_pool is None else global_pool
        self.head = _classifier(self.num_features, num_classes)
        _draw(self.head)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return how timm separates the layers, for rates that fall from layer to layer: by stage, or by block."""
        if coarse:
            return {"stem": r"^patch_embed1", "blocks": r"^(?:patch_embed|block|norm)(\d+)"}
        blocks = [
            (r"^patch_embed(\d+)", (0,)),  # together with the stage's first block
            (r"^block(\d+)\.(\d+)", None),
            (r"^norm(\d+)", (99999,)),  # together with its last block
        ]
        return {"stem": r"^patch_embed1", "blocks": blocks}


def _classifier(width: int, classes: int) -> nn.Module:
    return nn.Linear(width, classes) if classes else nn.Identity()


def _draw(module: nn.Module) -> None:
    """Initialise convolutions by their outputs (He et al. 2015), and the classifier with a narrow normal."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _van(name: str, pretrained: bool, **arguments: Any) -> Any:
    return build_model_with_cfg(VAN, name, pretrained, **arguments)


def van_b0(pretrained: bool = False, **arguments: Any) -> Any:
    """VAN-B0, also called VAN-T: 4.1 million parameters including its classifier."""
    return _van("van_b0", pretrained, dims=(32, 64, 160, 256), depths=(3, 3, 5, 2), **arguments)


def van_b1(pretrained: bool = False, **arguments: Any) -> Any:
    """VAN-B1: 13.9 million parameters."""
    return _van("van_b1", pretrained, dims=(64, 128, 320, 512), depths=(2, 2, 4, 2), **arguments)


def van_b2(pretrained: bool = False, **arguments: Any) -> Any:
    """VAN-B2: 26.6 million parameters."""
    return _van("van_b2", pretrained, dims=(64, 128, 320, 512), depths=(3, 3, 12, 3), **arguments)


def van_b3(pretrained: bool = False, **arguments: Any) -> Any:
    """VAN-B3: 44.8 million parameters."""
    return _van("van_b3", pretrained, dims=(64, 128, 320, 512), depths=(3, 5, 27, 3), **arguments)


MODELS = (van_b0, van_b1, van_b2, van_b3)
