import pytest
import timm
import torch
from timm.models import _registry
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from trainers.config import SGD, Adam, AdamW, Constant, Cosine, Freeze, OneCycle, Plateau, Step
from trainers.models import majority
from trainers.optim import optimizers


def rates(schedule, epochs=10, **more):
    return [optimizers.factor(schedule, epoch + 0.5, epochs, **more) for epoch in range(epochs)]


def test_constant_stays():
    assert rates(Constant()) == [1.0] * 10


def test_step_is_torchs_step_lr():
    ours = [optimizers.factor(Step(every=2, factor=0.8), float(epoch), 10) for epoch in range(10)]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs, scheduler = [], torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.8)
    for _ in range(10):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert ours == pytest.approx(theirs)


def test_cosine_is_torchs_annealing():
    ours = [optimizers.factor(Cosine(min_lr_ratio=0.1), float(epoch), 10) for epoch in range(10)]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs, scheduler = [], torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10, 0.1)
    for _ in range(10):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert ours == pytest.approx(theirs)


def test_warm_up_rises_in_a_line_to_the_peak():
    assert [optimizers.factor(Constant(warmup_epochs=2), p, 10) for p in (0.5, 1.0, 2.0, 3.0)] == [
        0.25,
        0.5,
        1.0,
        1.0,
    ]


def test_cosine_falls_to_its_floor_after_the_warm_up():
    schedule = Cosine(warmup_epochs=3, min_lr_ratio=0.01)
    assert optimizers.factor(schedule, 3.0, 10) == pytest.approx(1.0)
    assert optimizers.factor(schedule, 10.0, 10) == pytest.approx(0.01)


def test_one_cycle_starts_low_peaks_and_ends_at_its_floor():
    schedule = OneCycle(pct_start=0.3, start=0.04, min_lr_ratio=1e-4)
    assert [optimizers.factor(schedule, p, 10) for p in (0.0, 3.0, 10.0)] == pytest.approx([0.04, 1.0, 1e-4])


def test_plateau_steps_after_patience_epochs_without_a_new_best():
    assert optimizers.reductions([0.5, 0.6, 0.6, 0.6], patience=2) == 0
    assert optimizers.reductions([0.5, 0.6, 0.6, 0.6, 0.6], patience=2) == 1
    assert optimizers.reductions([0.5, 0.4, 0.6, 0.5, 0.7], patience=1) == 0


def test_plateau_is_torchs_reduce_on_plateau():
    values = [0.1, 0.3, 0.2, 0.3, 0.1, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", patience=2, factor=0.5, threshold=0.0
    )
    for count, value in enumerate(values, start=1):
        scheduler.step(value)
        ours = optimizers.factor(Plateau(patience=2, factor=0.5), count + 0.5, 20, values[:count])
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"])


def parts():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), nn.Linear(4, 2)


def test_norms_and_biases_are_not_decayed():
    built = optimizers.build(AdamW(lr=0.1, weight_decay=0.5), *parts())
    decays = {p.ndim: group["weight_decay"] for group in built.param_groups for p in group["params"]}
    assert decays == {4: 0.5, 2: 0.5, 1: 0.0}


def test_the_backbone_has_its_own_rate():
    built = optimizers.build(Adam(lr=0.1, backbone_lr_scale=0.01), *parts())
    assert optimizers.set_rate(built, 0.5) == pytest.approx(0.05)
    assert [group["lr"] for group in built.param_groups] == pytest.approx([0.0005, 0.0005, 0.05, 0.05])


@pytest.mark.parametrize("config", [AdamW(lr=0.1), Adam(lr=0.1), SGD(lr=0.1, nesterov=True)])
def test_every_optimizer_takes_a_step(config):
    backbone, head = parts()
    built = optimizers.build(config, backbone, head)
    before = head.weight.detach().clone()
    head(backbone(torch.randn(2, 3, 3, 3)).flatten(1)).sum().backward()
    built.step()
    assert not torch.equal(before, head.weight)


# ------------------------------------------------------------------------------------------ layers
def built(config, name="test_vit"):
    backbone, head = timm.create_model(name, num_classes=0), nn.Linear(4, 2)
    return backbone, head, optimizers.build(config, backbone, head)


def peak(optimizer, wanted):
    return next(g["peak"] for g in optimizer.param_groups for p in g["params"] if p is wanted)


def test_depth_falls_from_the_first_layer_to_the_last():
    depth = optimizers.depths(timm.create_model("test_vit", num_classes=0))
    blocks = [depth[f"blocks.{n}.attn.qkv.weight"] for n in range(6)]
    assert blocks == sorted(blocks, reverse=True)
    assert depth["patch_embed.proj.weight"] == max(depth.values()) == 1
    assert min(depth.values()) > 0  # the head alone is at 0


def test_layer_decay_lowers_the_rate_of_each_layer_below_that_of_the_one_above():
    backbone, head, optimizer = built(AdamW(lr=1e-3, backbone_lr_scale=0.5, layer_decay=0.8))
    for block in range(6):
        weight = backbone.blocks[block].attn.qkv.weight
        assert peak(optimizer, weight) == pytest.approx(5e-4 * 0.8 ** (6 - block))
    assert peak(optimizer, backbone.cls_token) == pytest.approx(5e-4 * 0.8**7)
    assert peak(optimizer, head.weight) == 1e-3


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "mobilenetv2_100",
        "efficientnet_b0",
        "resnet50",
        "convnext_tiny",
        "swin_tiny_patch4_window7_224",
        "vit_tiny_patch16_224",
        "deit_tiny_distilled_patch16_224",
        "test_vit",
        "pit_ti_224",
    ],
)
def test_layer_decay_is_timms(name, kept):
    """Of timm's whole model, whose classifier our head replaces or follows."""
    with torch.device("meta"):
        whole, head = timm.create_model(name), nn.Linear(4, 2)
        backbone = whole if kept else timm.create_model(name, num_classes=0)
    names = {id(p): name for name, p in whole.named_parameters()}
    scales = {
        names[id(p)]: group["lr_scale"]
        for group in param_groups_layer_decay(whole, layer_decay=0.7)
        for p in group["params"]
    }
    ours = optimizers.build(AdamW(lr=2.0, layer_decay=0.7), backbone, head)
    for key, parameter in backbone.named_parameters():
        assert peak(ours, parameter) == pytest.approx(2 * scales[key]), key


def test_a_layer_decay_of_one_is_one_rate_for_the_backbone():
    backbone, _, optimizer = built(AdamW(lr=1e-3))
    assert {peak(optimizer, parameter) for parameter in backbone.parameters()} == {1e-3}


def test_every_parameter_is_in_one_group():
    backbone, head, optimizer = built(AdamW(layer_decay=0.7), "test_resnet")
    inside = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(inside) == sorted(map(id, [*backbone.parameters(), *head.parameters()]))


def test_norms_and_biases_are_decayed_only_where_the_recipe_says_so():
    for decay_norm_and_bias in (False, True):
        backbone, _, optimizer = built(SGD(weight_decay=0.1, decay_norm_and_bias=decay_norm_and_bias), "test_resnet")
        decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
        for parameter in backbone.parameters():
            assert decays[id(parameter)] == (0.1 if parameter.ndim > 1 or decay_norm_and_bias else 0.0)


def test_a_backbone_that_names_no_layers_has_one_a_module():
    assert set(optimizers.depths(nn.Linear(2, 2)).values()) == {1.0}
    depth = optimizers.depths(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3))))
    assert depth == pytest.approx(
        {"0.weight": 1, "0.bias": 1, "1.0.weight": 2 / 3, "1.0.bias": 2 / 3, "1.1.weight": 1 / 3, "1.1.bias": 1 / 3}
    )


def test_what_timm_spares_is_not_decayed_unless_the_recipe_says_so():
    for decay_norm_and_bias in (False, True):
        backbone, _, optimizer = built(AdamW(weight_decay=0.1, decay_norm_and_bias=decay_norm_and_bias))
        decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
        for name, parameter in backbone.named_parameters():
            spared = parameter.ndim <= 1 or name in ("cls_token", "pos_embed", "reg_token")
            assert decays[id(parameter)] == (0.1 if decay_norm_and_bias or not spared else 0.0), name


@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "beit_base_patch16_224", "convnext_atto"]
)
@pytest.mark.parametrize("layer_decay", [1.0, 0.75])
def test_decay_is_timms_for_every_family(name, layer_decay):
    with torch.device("meta"):
        backbone, head = timm.create_model(name, num_classes=0), nn.Linear(4, 2)
    ours = optimizers.build(AdamW(weight_decay=0.1, layer_decay=layer_decay), backbone, head).param_groups
    spared = backbone.no_weight_decay() if hasattr(backbone, "no_weight_decay") else ()
    theirs = param_groups_weight_decay(backbone, 0.1, no_weight_decay_list=spared)
    decays, expected = ({id(p): g["weight_decay"] for g in all for p in g["params"]} for all in (ours, theirs))
    assert {key: decays[key] for key in expected} == expected


WITHOUT_MATCHER = ["caformer_s18", "poolformer_s12", "pit_ti_224", "mobilenetv5_300m_enc", "csatv2"]


def kinds():
    """Of every module of timm one model for each first word of a name, the shortest; the baseline is no network."""
    current = set(timm.list_models()) - {majority.NAME}
    for module in _registry._module_to_models.values():
        names = sorted(current & module, key=lambda name: (-len(name), name))
        yield from {name.split("_")[0]: name for name in names}.values()


def layered(name):
    with torch.device("meta"):
        depth = optimizers.depths(timm.create_model(name, num_classes=0))
    levels = sorted(set(depth.values()))
    assert len(levels) > 2, f"{name}: {levels}"
    assert (levels[0], levels[-1]) == (pytest.approx(1 / len(levels)), 1.0)
    quarter = len(depth) // 4
    first, last = (sum(part) / quarter for part in (list(depth.values())[:quarter], list(depth.values())[-quarter:]))
    assert first > 0.5 > last, (name, first, last)


@pytest.mark.parametrize("name", WITHOUT_MATCHER)
def test_a_backbone_without_a_matcher_has_many_layers(name):
    layered(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(kinds()))
def test_every_architecture_has_layers_whose_rates_rise_towards_the_head(name):
    layered(name)


# ------------------------------------------------------------------------------------------ momentum
def fitted(module, optimizer, images=4):
    labels = torch.arange(images) % 3
    nn.functional.cross_entropy(module(torch.randn(images, 3, 32, 32)), labels).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


@pytest.mark.parametrize("layer_decay", [1.0, 0.8])
@pytest.mark.parametrize("config", [AdamW(), Adam(), SGD(), SGD(nesterov=True), SGD(momentum=0.0)], ids=str)
def test_layers_that_join_in_later_learn_with_every_optimizer(config, layer_decay):
    backbone = timm.create_model("test_resnet", num_classes=0)
    net = nn.Sequential(backbone, nn.Linear(backbone.num_features, 3))
    optimizer = optimizers.build(config.model_copy(update={"lr": 0.01, "layer_decay": layer_decay}), *net)
    how, first = Freeze(epochs=1, gradual_epochs=2), next(backbone.parameters())
    for epoch in range(4):
        before = first.detach().clone()
        optimizers.thaw(backbone, optimizers.learning(how, epoch), ())
        fitted(net, optimizer)
        assert torch.equal(first, before) is (epoch < 3)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_that_begins_as_zeros_gives_torchs_own_numbers(nesterov):
    ours, theirs = nn.Linear(8, 3), nn.Linear(8, 3)
    theirs.load_state_dict(ours.state_dict())
    how = {"lr": 0.1, "momentum": 0.9, "nesterov": nesterov, "weight_decay": 0.01}
    stepped = (
        (ours, optimizers.build(SGD(**how, decay_norm_and_bias=True), nn.Module(), ours)),
        (theirs, torch.optim.SGD(theirs.parameters(), **how, fused=True)),
    )
    for _ in range(5):
        x = torch.randn(4, 8)
        for net, optimizer in stepped:
            net(x).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_all_layers_learn_where_nothing_is_frozen():
    assert [optimizers.learning(Freeze(), epoch) for epoch in range(3)] == [1.0, 1.0, 1.0]
    assert [optimizers.learning(Freeze(epochs=2), epoch) for epoch in range(4)] == [0.0, 0.0, 1.0, 1.0]
    staged = [optimizers.learning(Freeze(epochs=1, gradual_epochs=3), epoch) for epoch in range(6)]
    assert staged == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
