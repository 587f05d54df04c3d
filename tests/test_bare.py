"""Networks that are filled instead of drawn."""

import pytest
import timm
import torch
from torch import nn

from trainers.models import bare


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(3, 3)
        self.other = self.one


class Deciding(nn.Module):
    """Computes with a value while it is made."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, int(torch.tensor([2.0]).sum().item()))


class Hiding(nn.Module):
    """Has a tensor that its state lacks and nobody could make again."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.register_buffer("scale", torch.ones(3), persistent=False)


def same_output(name, side):
    drawn = timm.create_model(name, num_classes=0).eval()
    filled = bare.filled(lambda: timm.create_model(name, num_classes=0), lambda _: drawn.state_dict()).eval()
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(filled(images), drawn(images), rtol=0, atol=0)
    assert [p.requires_grad for p in filled.parameters()] == [p.requires_grad for p in drawn.parameters()]


@pytest.mark.parametrize(("name", "side"), [("test_vit", 160), ("mobilenetv3_small_050", 64), ("convnext_atto", 64)])
def test_a_filled_network_computes_what_the_drawn_one_does(name, side):
    same_output(name, side)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["swin_tiny_patch4_window7_224", "levit_128", "resnetblur50", "eva02_tiny_patch14_224", "maxvit_tiny_tf_224"],
)
def test_buffers_that_no_file_holds_are_made_again(name):
    same_output(name, timm.get_pretrained_cfg(name).input_size[-1])


class Listing(nn.Module):
    """Hides tensors in a list."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.scales = [torch.ones(3)]


@pytest.mark.parametrize("kind", [Tied, Deciding, Hiding, Listing])
def test_what_cannot_be_made_bare_is_drawn_and_then_filled(kind):
    made = kind()
    filled = bare.filled(kind, lambda _: made.state_dict())
    assert bare._bare(kind) is None
    for name, tensor in made.state_dict().items():
        assert torch.equal(filled.state_dict()[name], tensor)


def test_a_filled_network_shares_no_memory_with_the_weights():
    weights = {name: tensor.half() for name, tensor in nn.Linear(2, 2).state_dict().items()}
    filled = bare.filled(lambda: nn.Linear(2, 2), lambda _: weights)
    with torch.no_grad():
        filled.weight.zero_()
    assert filled.weight.dtype == torch.float32
    assert weights["weight"].abs().sum() > 0
