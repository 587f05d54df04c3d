import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trainers.config import Query2Label, TrainConfig
from trainers.models import network
from trainers.models.query2label import Decoder, Layer, as_map, positions, sides

SMALL = Query2Label(width=32, heads=4, feed_forward=64)


def test_over_its_own_input_a_layer_is_torchs_encoder_layer():
    ours = Layer(32, 4, 64, 0.0)
    torchs = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True, norm_first=False)
    names = {key: key.replace("attention.", "self_attn.") for key in ours.state_dict()}
    torchs.load_state_dict({names[key]: value for key, value in ours.state_dict().items()})
    x = torch.randn(2, 9, 32)
    torch.testing.assert_close(ours(x, x), torchs(x))


def by_hand(layer, queries, memory, heads):
    """Cross-attention, feed-forward part and norms, written out; [B, K, d], [B, N, d] -> [B, K, d]."""
    weights, biases = layer.attention.in_proj_weight.chunk(3), layer.attention.in_proj_bias.chunk(3)
    inputs = (queries, memory, memory)
    q, k, v = (
        (x @ w.T + b).unflatten(2, (heads, -1)).transpose(1, 2)
        for x, w, b in zip(inputs, weights, biases, strict=True)
    )
    shares = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).softmax(-1)
    found = (shares @ v).transpose(1, 2).flatten(2)
    found = F.linear(found, layer.attention.out_proj.weight, layer.attention.out_proj.bias)
    x = F.layer_norm(queries + found, (32,), layer.norm1.weight, layer.norm1.bias)
    hidden = F.linear(x, layer.linear1.weight, layer.linear1.bias).clamp_min(0)
    out = F.linear(hidden, layer.linear2.weight, layer.linear2.bias)
    return F.layer_norm(x + out, (32,), layer.norm2.weight, layer.norm2.bias)


def drawn(module):
    """The module with no parameter left at 0 or 1, so that none can be forgotten unnoticed."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0.5 if parameter.ndim == 1 else 0.0, 0.3)
    return module.eval()


def test_queries_attend_to_the_map_and_not_to_each_other():
    layer = drawn(Layer(32, 4, 64, 0.3))
    queries, memory = torch.randn(2, 6, 32), torch.randn(2, 9, 32)
    together = layer(queries, memory)
    torch.testing.assert_close(together, by_hand(layer, queries, memory, 4))
    torch.testing.assert_close(together[:, :1], layer(queries[:, :1], memory))


def test_the_whole_head_is_its_published_parts_one_after_the_other():
    head = drawn(Decoder(SMALL, 8, [3, 2]))
    features = torch.randn(2, 8, 3, 5)
    grid = torch.einsum("bchw,dc->bdhw", features, head.project.weight[:, :, 0, 0])
    grid = grid + head.project.bias[:, None, None] + positions(torch.empty(1, 32, 3, 5))
    memory = grid.permute(0, 2, 3, 1).reshape(2, 15, 32)
    memory = by_hand(head.encoders[0], memory, memory, 4)
    x = torch.stack([head.queries, head.queries])
    for layer in head.decoders:
        x = by_hand(layer, x, memory, 4)
    x = F.layer_norm(x, (32,), head.norm.weight, head.norm.bias)
    logits = [x[:, k] @ end.weight.T + end.bias for k, end in enumerate(head.ends)]
    torch.testing.assert_close(head(features), torch.cat(logits, 1), rtol=1e-4, atol=1e-5)


def test_positions_are_sines_and_cosines_of_row_and_column():
    found = positions(torch.empty(1, 8, 3, 5))
    row, column = 2 * 2 * math.pi / 3, 4 * 2 * math.pi / 5
    expected = [f(angle * rate) for angle in (row, column) for rate in (1.0, 0.01) for f in (math.sin, math.cos)]
    torch.testing.assert_close(found[:, 1, 3], torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_every_place_of_a_map_has_a_position_of_its_own():
    places = positions(torch.empty(1, 16, 7, 7)).flatten(1).T
    assert torch.cdist(places, places).add(torch.eye(49)).min() > 0.1


def test_maps_with_channels_first_or_last_and_tokens_are_the_same_map():
    grid = torch.randn(2, 6, 4, 4)
    tokens = torch.cat([torch.randn(2, 3, 6), grid.flatten(2).transpose(1, 2)], dim=1)
    assert torch.equal(as_map(grid.permute(0, 2, 3, 1), 6), grid)
    assert torch.equal(as_map(tokens, 6, prefix=3), grid)


def placed(height, width):
    """An input of which each patch of 16 pixels knows its number, and a vision transformer that only passes it on."""
    config = TrainConfig(
        backbone="test_vit",
        pretrained=False,
        image_size={"height": 16 * height, "width": 16 * width},
        head={"name": "query2label", **SMALL.model_dump()},
    )
    net = network.build(config, [2]).eval()
    net.backbone.blocks, net.backbone.pos_embed = nn.Identity(), None
    numbers = torch.arange(1.0, height * width + 1).view(1, 1, height, width)
    return net, numbers.repeat_interleave(16, 2).repeat_interleave(16, 3).expand(-1, 3, -1, -1)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 16), (16, 8), (3, 5), (16, 4)])
def test_tokens_of_tall_and_wide_inputs_stay_where_their_patches_are(height, width):
    net, images = placed(height, width)
    seen = []
    net.head.project.register_forward_hook(lambda _module, inputs, _out: seen.append(inputs[0]))
    net(images)
    embedded = net.backbone.norm(net.backbone.patch_embed(images))  # [1, N, D]
    expected = embedded.view(1, height, width, -1).permute(0, 3, 1, 2)
    torch.testing.assert_close(seen[0], expected)


@pytest.mark.parametrize("size", [(120, 240), (240, 120), (209, 420), (100, 200), (256, 64), (224, 224)])
@pytest.mark.parametrize("patch", [14, 16])
def test_the_grid_of_an_input_follows_from_its_proportions_even_if_patches_leave_out_its_edge(size, patch):
    height, width = (side // patch for side in size)
    assert sides(height * width, size[0] / size[1]) == (height, width)


@pytest.mark.parametrize(("tokens", "aspect"), [(197, 1.0), (210, 1.0), (128, 1.0), (64, 0.25 * 5), (127, 2.0)])
def test_tokens_that_do_not_fill_a_grid_in_the_input_s_proportions_are_no_map(tokens, aspect):
    with pytest.raises(ValueError, match=f"{tokens} tokens are no grid in the proportions of the input"):
        as_map(torch.zeros(1, tokens, 6), 6, aspect=aspect)


def test_pooled_features_are_no_map():
    with pytest.raises(ValueError, match="no map of 6 features"):
        as_map(torch.randn(2, 6), 6)


POOLED_LAST = ["test_resnet", "test_efficientnet", "mobilenetv2_100", "van_b0", "swin_tiny_patch4_window7_224"]


def seen_map(backbone, images):
    """The backbone as the head has it, and the map [B, D, H, W] that it gives."""
    config = TrainConfig(backbone=backbone, pretrained=False, image_size=images.shape[-1], head="query2label")
    net = network.create(config).eval()
    return net, as_map(net(images), network.features(config, net), getattr(net, "num_prefix_tokens", 0))


@pytest.mark.parametrize("backbone", [*POOLED_LAST, "test_convnext", "test_vit", "test_vit2"])
def test_a_map_has_the_sides_of_a_grid(backbone):
    net, grid = seen_map(backbone, torch.randn(1, 3, 64, 64))
    assert grid.shape[1] == net.head_hidden_size
    assert grid.shape[2] == grid.shape[3] >= 2


@pytest.mark.parametrize("backbone", POOLED_LAST)
def test_the_mean_of_the_map_is_what_the_backbone_pools(backbone):
    images = torch.randn(1, 3, 64, 64)
    net, grid = seen_map(backbone, images)
    net.reset_classifier(0, "avg")
    torch.testing.assert_close(net(images), grid.mean((2, 3)), rtol=1e-3, atol=1e-4)


def test_a_class_token_is_no_place_of_the_map():
    images = torch.randn(1, 3, 64, 64)
    net, grid = seen_map("test_vit", images)
    assert torch.equal(grid.flatten(2).transpose(1, 2), net.forward_features(images)[:, net.num_prefix_tokens :])


def test_in_mixed_precision_only_the_last_layers_are_wide():
    config = TrainConfig(
        backbone="test_resnet", pretrained=False, image_size=32, head={"name": "query2label", **SMALL.model_dump()}
    )
    net, seen = network.build(config, [3, 2]).eval(), {}
    for name, module in net.head.named_modules():
        module.register_forward_hook(lambda _module, _inputs, out, name=name: seen.update({name: out}))
    images = torch.randn(2, 3, 32, 32)
    plain = net(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = net(images)
    kinds = {name: out.dtype for name, out in seen.items() if isinstance(out, torch.Tensor)}
    assert {kinds[name] for name in ("project", "decoders.0.linear1", "encoders.0.linear2")} == {torch.bfloat16}
    assert {kinds[name] for name in ("ends.0", "ends.1", "")} == {torch.float32}
    torch.testing.assert_close(mixed, plain, atol=0.05, rtol=0.05)
