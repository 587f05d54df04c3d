import pytest
import torch
from torch import nn

from trainers.config import EMA, SWA, NoAverage, Recipe
from trainers.loading.batches import Data
from trainers.optim import averaging
from trainers.support import device
from trainers.train import TrainingRun
from trainers.train import train as train_


def net(*weights):
    layers = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    for parameter, value in zip(layers.parameters(), weights, strict=False):
        nn.init.constant_(parameter, value)
    return layers


def weights(followed):
    return [float(p.flatten()[0]) for p in followed.net.parameters()]


def test_a_recipe_without_an_average_has_no_follower():
    assert averaging.build(NoAverage(), net(), epochs=3) is None


def test_an_ema_follows_its_recurrence_step_by_step():
    followed = averaging.Averaged(EMA(decay=0.5), net(1.0), epochs=3)
    expected = 1.0
    for count, value in enumerate([2.0, 4.0, -1.0, 7.0]):
        followed.step(net(value))
        keep = min(0.5, (1 + count) / (10 + count))
        expected = keep * expected + (1 - keep) * value
        torch.testing.assert_close(weights(followed)[0], expected)


def test_an_ema_that_keeps_nothing_is_the_network_itself():
    followed, newest = averaging.Averaged(EMA(decay=0), net(1.0), epochs=3), net(5.0)
    newest(torch.randn(4, 3))  # its norm now has statistics
    followed.step(newest)
    for own, other in zip(followed.net.state_dict().values(), newest.state_dict().values(), strict=True):
        torch.testing.assert_close(own, other)


def test_an_ema_stands_for_nothing_before_its_first_step():
    followed = averaging.Averaged(EMA(), net(), epochs=3)
    assert not followed.ready
    followed.step(net())
    assert followed.ready


def trained(layers):
    """One step of a network in its place: other weights, other statistics, one more batch counted."""
    layers.train()(torch.randn(8, 3)).square().sum().backward()
    torch.optim.SGD(layers.parameters(), lr=0.1).step()


def test_an_ema_follows_every_tensor_of_a_network_that_trains():
    layers = net()
    followed = averaging.Averaged(EMA(decay=0.5), layers, epochs=3)
    wanted = {name: tensor.clone() for name, tensor in layers.state_dict().items()}
    for count in range(4):
        trained(layers)
        followed.step(layers)
        keep = min(0.5, (1 + count) / (10 + count))
        for name, tensor in layers.state_dict().items():
            wanted[name] = wanted[name].lerp(tensor, 1 - keep) if tensor.is_floating_point() else tensor.clone()
    found = followed.net.state_dict()
    assert wanted["1.num_batches_tracked"] == 4
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_follower_that_was_restored_moves_its_own_tensors():
    layers = net(1.0)
    followed = averaging.Averaged(EMA(decay=0.5), layers, epochs=3)
    trained(layers)
    followed.step(layers)
    state = {name: torch.zeros_like(tensor) for name, tensor in followed.net.state_dict().items()}
    followed.load_state_dict({"network": state, "count": 100})
    followed.step(layers)
    torch.testing.assert_close(followed.net[0].weight, 0.5 * layers[0].weight.detach())
    torch.testing.assert_close(followed.net[1].running_var, 0.5 * layers[1].running_var)


def test_tensors_that_take_the_place_of_others_are_followed_from_the_next_epoch():
    layers = net(1.0)
    followed = averaging.Averaged(EMA(decay=0), layers, epochs=3)
    followed.step(layers)
    layers[1].running_mean = torch.tensor([3.0, 4.0])  # as of a network that is set to another image size
    followed.epoch(layers, 0)
    followed.step(layers)
    assert followed.net[1].running_mean.tolist() == [3.0, 4.0]


class Positions(nn.Module):
    """As timm's convit does, it makes what it knows of an input's size when it sees one."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("places", torch.zeros(3), persistent=False)

    def forward(self, x):
        self.places = torch.arange(x.shape[-1], dtype=torch.float32)
        return self.scale * (x + self.places)


@pytest.mark.parametrize("config", [EMA(decay=0), SWA(start=0)], ids=str)
def test_what_a_forward_makes_again_is_not_averaged(config):
    layers = Positions()
    followed = averaging.Averaged(config, layers, epochs=3)
    layers(torch.zeros(2, 5))
    nn.init.constant_(layers.scale, 3.0)
    followed.step(layers)
    followed.epoch(layers, 0)
    assert weights(followed) == [3.0]
    assert followed.net.places.tolist() == [0, 0, 0]
    assert torch.equal(followed.net(torch.zeros(2, 5)), layers(torch.zeros(2, 5)))


def test_a_weight_of_two_layers_moves_once():
    layers = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    layers[1].weight = layers[0].weight
    nn.init.constant_(layers[0].weight, 1.0)
    followed = averaging.Averaged(EMA(decay=0.5), layers, epochs=3)
    followed.count = 100
    nn.init.constant_(layers[0].weight, 3.0)
    followed.step(layers)
    assert weights(followed)[0] == 2.0


def test_swa_is_the_mean_of_the_weights_after_its_epochs():
    followed = averaging.Averaged(SWA(start=0.5), net(9.0), epochs=4)
    asked = []
    for index, value in enumerate([1.0, 2.0, 3.0, 5.0]):
        followed.step(net(100.0))  # steps inside an epoch are none of its business
        asked.append(followed.epoch(net(value), index))
    assert asked == [False, False, True, True]  # and only then are statistics of norms due
    torch.testing.assert_close(weights(followed)[0], 4.0)


def test_renewed_statistics_are_those_of_the_batches():
    layers, batches = nn.BatchNorm2d(3), [5 * torch.randn(4, 3, 8, 8) + 2 for _ in range(3)]
    layers.running_mean.fill_(77)
    averaging.renew_statistics(layers, [""], batches)
    means = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    torch.testing.assert_close(layers.running_mean, means)
    assert not layers.training
    assert layers.momentum == 0.1


def test_statistics_of_norms_that_do_not_train_stay_as_they_are():
    layers = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3)).train()
    followed = averaging.Averaged(SWA(start=0), layers, epochs=3)
    layers[0].eval()  # as of a frozen layer
    assert followed.epoch(layers, 0)
    averaging.renew_statistics(followed.net, averaging.training_norms(layers), [torch.randn(8, 3) + 5])
    assert followed.net[0].running_mean.tolist() == [0, 0, 0]
    assert all(mean > 3 for mean in followed.net[1].running_mean.tolist())
    layers[1].eval()
    assert not followed.epoch(layers, 1)


def test_swa_leaves_a_frozen_backbone_as_it_was(photos, cache, tmp_path):
    train = {"backbone": "test_resnet", "pretrained": False, "image_size": 32, "epochs": 1, "batch_size": 8}
    more = {"freeze": {"epochs": 1}, "head": "category_mlp", "weight_averaging": {"name": "swa", "start": 0}}
    run = TrainingRun(
        Recipe(data=photos, train=train | more), Data.open(photos, cache), ("train",), torch.device("cpu"), tmp_path
    )
    before = {key: tensor.clone() for key, tensor in run.net.state_dict().items()}
    run.fit(0)
    moved = {key for key, tensor in run.average.net.state_dict().items() if not torch.equal(before[key], tensor)}
    assert {key.split(".")[0] for key in moved} == {"head"}
    assert any("running_mean" in key for key in moved)


def test_statistics_are_renewed_as_evaluation_sees_images_without_dropout():
    layers, batches = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3)).eval(), [torch.randn(8, 3) for _ in range(4)]
    averaging.renew_statistics(layers, ["1"], batches)
    means = torch.stack([batch.mean(0) for batch in batches]).mean(0)
    torch.testing.assert_close(layers[1].running_mean, means)
    assert not any(module.training for module in layers.modules())


def test_the_state_of_a_follower_is_enough_to_go_on():
    first = net(1.0)
    followed, other = (averaging.Averaged(EMA(decay=0.9), first, epochs=3) for _ in range(2))
    for value in (2.0, 3.0):
        followed.step(net(value))
    other.load_state_dict(followed.state_dict())
    newest = net(8.0)
    for one in (followed, other):
        one.step(newest)
    assert weights(followed) == weights(other)


def test_statistics_are_renewed_on_whole_batches(photos, cache, tmp_path, monkeypatch):
    """A norm over [B, D] cannot take a last batch of one image."""
    monkeypatch.setattr(averaging, "STATISTICS", 17)
    train = {"backbone": "test_resnet", "pretrained": False, "image_size": 32, "epochs": 1, "batch_size": 8}
    recipe = Recipe(
        data=photos, train={**train, "head": "category_mlp", "weight_averaging": {"name": "swa", "start": 0}}
    )
    assert [epoch.number for epoch in train_(recipe, Data.open(photos, cache), tmp_path)] == [1]


def test_statistics_are_renewed_as_evaluation_computes(photos, cache, tmp_path, monkeypatch):
    """In mixed precision where the recipe has it: other formats, other statistics."""
    monkeypatch.setattr(device, "has_bf16", lambda: True)
    train = {"backbone": "test_resnet", "pretrained": False, "image_size": 32, "epochs": 1, "batch_size": 8}
    more = {"precision": "bf16", "weight_averaging": {"name": "swa", "start": 0}}
    run = TrainingRun(
        Recipe(data=photos, train=train | more), Data.open(photos, cache), ("train",), torch.device("cpu"), tmp_path
    )
    first, seen = next(m for m in run.average.net.modules() if isinstance(m, nn.Conv2d)), []
    first.register_forward_hook(lambda _module, _inputs, out: seen.append(out.dtype))
    run.fit(0)
    assert set(seen) == {torch.bfloat16}
