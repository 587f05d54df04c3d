import timm
import torch
import torch.nn.functional as F
from timm.models import group_parameters

from trainers.config import TrainConfig
from trainers.models import network, van
from trainers.support.checkpoint import save_weights

BLOCK = ("norm1", "norm2", "attn.proj_1", "attn.proj_2", "mlp.fc1", "mlp.dwconv.dwconv", "mlp.fc2")
BLOCK += tuple(f"attn.spatial_gating_unit.{part}" for part in ("conv0", "conv_spatial", "conv1"))


def drawn(net, seed=0):
    """The network with no parameter or statistic left at 0 or 1, so that none can be forgotten unnoticed."""
    rng = torch.Generator().manual_seed(seed)
    for key, value in net.state_dict().items():
        if value.dtype.is_floating_point:
            spread = 0.1 if value.ndim == 1 else value[0].numel() ** -0.5
            centre = 1.0 if key.endswith(("running_var", "norm.weight")) else 0.1
            value.copy_(torch.empty(value.shape).normal_(0, spread, generator=rng) + centre * (value.ndim == 1))
            if key.endswith("running_var"):
                value.abs_()
    return net.eval()


def sums(x, weight, bias, *, stride=1, dilation=1, depthwise=False):
    """A padded convolution as a sum over windows that `unfold` lays out; no other convolution is used here."""
    kernel = weight.shape[-1]
    padding = dilation * (kernel - 1) // 2
    side = (x.shape[-1] - 1) // stride + 1
    windows = F.unfold(x, kernel, dilation=dilation, padding=padding, stride=stride)
    windows = windows.unflatten(1, (x.shape[1], kernel**2))  # [B, C, k k, places]
    if depthwise:
        out = torch.einsum("bckp,ck->bcp", windows, weight.flatten(1))
    else:
        out = torch.einsum("bckp,dck->bdp", windows, weight.flatten(2))
    return (out + bias[:, None]).unflatten(2, (side, side))


def normed(x, w, key):
    mean, var = w[f"{key}.running_mean"], w[f"{key}.running_var"]
    scale = w[f"{key}.weight"] / (var + 1e-5).sqrt()
    return (x - mean[:, None, None]) * scale[:, None, None] + w[f"{key}.bias"][:, None, None]


def by_hand(w, x, depths):
    """VAN's class scores [B, 1000] from a state dict, after the paper's section 3 and its published code's order."""

    def conv(x, key, **how):
        return sums(x, w[f"{key}.weight"], w[f"{key}.bias"], **how)

    for stage, depth in enumerate(depths, start=1):
        x = normed(conv(x, f"patch_embed{stage}.proj", stride=4 if stage == 1 else 2), w, f"patch_embed{stage}.norm")
        for number in range(depth):
            at = f"block{stage}.{number}"
            y = normed(x, w, f"{at}.norm1")
            u = F.gelu(conv(y, f"{at}.attn.proj_1"))
            lka = f"{at}.attn.spatial_gating_unit"
            gate = conv(u, f"{lka}.conv0", depthwise=True)
            gate = conv(conv(gate, f"{lka}.conv_spatial", dilation=3, depthwise=True), f"{lka}.conv1")
            x = x + w[f"{at}.layer_scale_1"][:, None, None] * (y + conv(gate * u, f"{at}.attn.proj_2"))
            y = conv(normed(x, w, f"{at}.norm2"), f"{at}.mlp.fc1")
            y = conv(F.gelu(conv(y, f"{at}.mlp.dwconv.dwconv", depthwise=True)), f"{at}.mlp.fc2")
            x = x + w[f"{at}.layer_scale_2"][:, None, None] * y
        channels = x.permute(0, 2, 3, 1)
        spread = (channels - channels.mean(-1, keepdim=True)) / (
            channels.var(-1, correction=0, keepdim=True) + 1e-6
        ) ** 0.5
        x = (spread * w[f"norm{stage}.weight"] + w[f"norm{stage}.bias"]).permute(0, 3, 1, 2)
    return x.flatten(2).mean(2) @ w["head.weight"].T + w["head.bias"]


def test_a_forward_pass_is_the_papers_written_out():
    net = drawn(timm.create_model("van_b0"))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    expected = by_hand(net.state_dict(), images, (3, 3, 5, 2))
    assert expected.std() > 0.01
    torch.testing.assert_close(net(images), expected, rtol=1e-3, atol=1e-3)


def test_all_four_sizes_have_as_many_parameters_as_published():
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in timm.create_model(f"van_b{n}").parameters()) for n in range(4)]
    assert [round(size / 1e6, 1) for size in sizes] == [4.1, 13.9, 26.6, 44.8]  # the paper's table 2
    assert sizes[0] == 3_848_800 + 257_000


def test_the_keys_are_those_of_the_published_files():
    with torch.device("meta"):
        keys = set(timm.create_model("van_b0").state_dict())
    expected = {"head.weight", "head.bias"}
    for stage, depth in enumerate((3, 3, 5, 2), start=1):
        parts = [f"patch_embed{stage}.proj", f"patch_embed{stage}.norm", f"norm{stage}"]
        parts += [f"block{stage}.{number}.{part}" for number in range(depth) for part in BLOCK]
        expected |= {f"{part}.{end}" for part in parts for end in ("weight", "bias")}
        batch_norms = [f"patch_embed{stage}.norm"]
        batch_norms += [f"block{stage}.{number}.norm{which}" for number in range(depth) for which in (1, 2)]
        ends = ("running_mean", "running_var", "num_batches_tracked")
        expected |= {f"{norm}.{end}" for norm in batch_norms for end in ends}
        expected |= {f"block{stage}.{number}.layer_scale_{which}" for number in range(depth) for which in (1, 2)}
    assert keys == expected


def test_weights_in_that_layout_load_from_a_local_file(tmp_path):
    donor = drawn(timm.create_model("van_b0"))
    save_weights(tmp_path / "van_b0.safetensors", donor.state_dict(), {})
    config = TrainConfig(backbone="van_b0", weights=str(tmp_path))
    backbone = network.build(config, [3, 2]).backbone.eval()
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(backbone(images), donor.forward_head(donor.forward_features(images), pre_logits=True))


def test_a_classifier_can_be_taken_off_and_put_on():
    net = timm.create_model("van_b0", num_classes=5, in_chans=1).eval()
    images = torch.randn(1, 1, 64, 64)
    assert net(images).shape == (1, 5)
    assert net.get_classifier().out_features == 5
    net.reset_classifier(0)
    assert net(images).shape == (1, net.num_features)
    net.reset_classifier(0, "")
    assert net(images).shape == (1, net.num_features, 2, 2)


def test_drop_path_grows_to_its_rate_with_depth_and_rests_in_evaluation():
    net = timm.create_model("van_b0", drop_path_rate=0.5)
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in blocks(net)]
    assert (rates[0], rates[-1]) == (0.0, 0.5)
    assert rates == sorted(rates)
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(net.eval()(images), net(images))


def blocks(net):
    return [module for module in net.modules() if isinstance(module, van.Block)]


def test_layers_are_told_apart_from_the_first_to_the_last():
    net = timm.create_model("van_b0", num_classes=0)
    layer = {key: number for number, keys in group_parameters(net, net.group_matcher()).items() for key in keys}
    assert max(layer.values()) == 3 + 3 + 5 + 2
    assert layer["patch_embed1.proj.weight"] == 0
    assert layer["block1.0.norm1.weight"] == 1
    assert layer["patch_embed2.proj.weight"] == layer["block2.0.norm1.weight"] == 4
    assert layer["norm4.weight"] == layer["block4.1.norm1.weight"] == 13
