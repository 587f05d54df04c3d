"""The first rung on frozen features: stacked heads train as each would alone, and features are computed once."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainers import features, losses, optim, probe
from trainers.checkpoint import save_weights
from trainers.config import DataConfig, Recipe, TrainConfig
from trainers.data.batches import Data
from trainers.models import heads
from trainers.models.network import Network
from trainers.stacked import Dropout, Heads, Objective

NAMES, SIZES, WIDTH = ["colour", "place"], [3, 2], 12
COUNTS = [[30, 8, 2], [25, 15]]
CPU = torch.device("cpu")
LOSSES: dict[str, list[dict[str, Any]]] = {
    "cross_entropy": [{"label_smoothing": 0.1}, {"class_weights": "inverse_frequency"}],
    "focal": [{"gamma": 0.0}, {"gamma": 0.7, "category_weights": {"place": 3.0}}, {"gamma": 2.5}],
    "asymmetric": [{"margin": 0.0}, {"gamma_negative": 2.0, "margin": 0.1}],
    "dice": [{"smooth": 0.3}, {"over_categories": "sum"}],
    "logit_adjusted": [{"tau": 0.5}, {"tau": 1.0, "label_smoothing": 0.2, "class_weights": "effective_number"}],
}
BEFORE_NORM = {"0.bias", *(f"1.parts.{k}.{name}" for k in (0, 1) for name in ("0.bias", "1.running_mean"))}
"""Of category_mlp: a shift that batch norm takes out has no gradient but rounding, which Adam makes full steps of."""
RATES = (1e-3, 3e-3, 1e-2)


def config(**changes: Any) -> TrainConfig:
    return TrainConfig(**({"backbone": "test_resnet", "pretrained": False, "image_size": 32} | changes))


def batches(count: int = 15, size: int = 16) -> list[tuple[Tensor, Tensor]]:
    made = torch.Generator().manual_seed(0)
    labels = [torch.randint(size_, (count, size), generator=made) for size_ in SIZES]
    seen = torch.randn(count, size, WIDTH, generator=made)
    return [(seen[n], torch.stack([one[n] for one in labels], dim=1)) for n in range(count)]


def alone(one: TrainConfig, given: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """The weights after training one head on the batches with torch's own optimizer, as trainers.train would."""
    torch.manual_seed(one.seed)
    head = heads.build(one.head, WIDTH, SIZES)
    head.train()
    optimizer = optim.build(one.optimizer, nn.Module(), head)
    objective = losses.build(one.loss, NAMES, COUNTS, CPU)
    for step, (seen, labels) in enumerate(given):
        optim.set_rate(optimizer, optim.factor(one.schedule, step / len(given) * one.epochs, one.epochs))
        objective(head(seen), labels).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return dict(head.state_dict())


def together(configs: list[TrainConfig], given: list[tuple[Tensor, Tensor]]) -> Heads:
    stack = Heads(configs, WIDTH, NAMES, COUNTS, CPU)
    for step, (seen, labels) in enumerate(given):
        factors = [optim.factor(c.schedule, step / len(given) * c.epochs, c.epochs) for c in configs]
        stack.step(seen, labels, torch.tensor(factors))
    return stack


# ----------------------------------------------------------------------------------- stacked heads
@pytest.mark.parametrize(
    "optimizer",
    [
        {"name": "adamw", "weight_decay": 0.3},
        {"name": "adam", "weight_decay": 0.01, "betas": (0.8, 0.99)},
        {"name": "sgd", "weight_decay": 0.01, "decay_norms": True},
        {"name": "sgd", "nesterov": True},
    ],
    ids=lambda one: " ".join(map(str, one.values())),
)
@pytest.mark.parametrize("head", ["linear", "logits_mlp", "category_mlp"])
def test_heads_that_train_together_end_where_each_ends_alone(optimizer, head):
    shape = {"name": head, "dropout": 0.0}
    kinds: list[dict[str, Any]] = [{"name": "cross_entropy"}, {"name": "focal", "gamma": 1.5}]
    configs = [
        config(head=shape, loss=loss, optimizer=optimizer | {"lr": rate}, schedule=schedule, seed=seed)
        for seed, (loss, rate, schedule) in enumerate(
            (loss, rate, schedule)
            for loss in kinds
            for rate, schedule in zip(RATES, ("cosine", "constant", "one_cycle"), strict=True)
        )
    ]
    given = batches()
    stack = together(configs, given)
    for n, one in enumerate(configs):
        for name, expected in alone(one, given).items():
            found = (stack.weights | stack.buffers)[name][n].detach()
            if not (head == "category_mlp" and optimizer["name"] != "sgd" and name in BEFORE_NORM):
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("over", ["softmax", "sigmoid"])
def test_the_loss_of_a_stack_is_the_loss_of_each_with_its_gradient(name, over):
    extra = {"over": over} if name == "asymmetric" else {}
    configs = [config(loss={"name": name, **extra, **settings}).loss for settings in LOSSES[name]]
    made = torch.Generator().manual_seed(1)
    logits = 4 * torch.randn(len(configs), 20, sum(SIZES), generator=made)
    labels = torch.stack([torch.randint(size, (20,), generator=made) for size in SIZES], dim=1)
    stacked, single = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    found = Objective(configs, NAMES, COUNTS, CPU)(stacked, labels)
    parts = [losses.build(c, NAMES, COUNTS, CPU)(single[t], labels) for t, c in enumerate(configs)]
    torch.testing.assert_close(found, torch.stack(parts), rtol=1e-5, atol=1e-6)
    found.sum().backward()
    torch.stack(parts).sum().backward()
    torch.testing.assert_close(stacked.grad, single.grad, rtol=1e-4, atol=1e-6)


def test_losses_of_several_kinds_stand_side_by_side():
    configs = [config(loss=name).loss for name in ("asymmetric", "dice", "dice", "focal")]
    logits, labels = torch.randn(4, 6, sum(SIZES)), torch.ones(6, 2, dtype=torch.int64)
    found = Objective(configs, NAMES, COUNTS, CPU)(logits, labels)
    parts = [losses.build(c, NAMES, COUNTS, CPU)(logits[t], labels) for t, c in enumerate(configs)]
    torch.testing.assert_close(found, torch.stack(parts))


def test_every_head_of_a_stack_has_its_own_dropout():
    configs = [config(head={"name": "linear", "dropout": p}) for p in (0.25, 0.75)]
    stack = Heads(configs, WIDTH, NAMES, COUNTS, CPU)
    dropouts = [module for module in stack.base.modules() if isinstance(module, Dropout)]
    assert len(dropouts) == 1
    kept = torch.func.vmap(
        lambda p: torch.func.functional_call(dropouts[0].train(), {"p": p}, (torch.ones(20_000),)),
        randomness="different",
    )(torch.tensor([0.25, 0.75]))
    assert kept.mean(1).tolist() == pytest.approx([1, 1], abs=0.05)
    assert (kept == 0).float().mean(1).tolist() == pytest.approx([0.25, 0.75], abs=0.02)
    assert torch.equal(stack.evaluate(torch.ones(3, WIDTH)), stack.evaluate(torch.ones(3, WIDTH)))


# ----------------------------------------------------------------------------------------- features
def recipe(data: DataConfig, **changes: Any) -> Recipe:
    train = {"backbone": "test_resnet", "pretrained": False, "image_size": 32, "batch_size": 8, "epochs": 4}
    return Recipe(data=data, goal="overall_accuracy", train=train | {"augment": {"flip": 0.5}} | changes)


@pytest.fixture
def opened(photos: DataConfig, cache: Path) -> Data:
    return Data.open(photos, cache)


def test_the_plain_features_are_what_evaluation_gives_the_head(photos, opened, tmp_path):
    asked = recipe(photos)
    found = features.features(asked, opened, tmp_path, CPU, views=3)
    assert found.train.shape[:2] == (48, 3)
    net = probe_net(asked, opened)
    lens = features.Lens(asked.train, opened, net, CPU)
    with torch.inference_mode():
        seen = torch.cat([net.backbone(images) for images in lens.images(opened.table.indices("val"))])
    torch.testing.assert_close(found.val.float(), seen, rtol=1e-3, atol=1e-3)
    assert not torch.equal(found.train[:, 0], found.train[:, 1])
    assert not torch.equal(found.train[:, 1], found.train[:, 2])


def probe_net(asked: Recipe, data: Data) -> Network:
    return features.network.build(asked.train, data.sizes).eval()


def test_features_are_computed_once(photos, opened, tmp_path, monkeypatch):
    first = features.features(recipe(photos), opened, tmp_path, CPU)
    (file,) = tmp_path.glob("*.safetensors")
    before = file.stat().st_mtime_ns
    other = recipe(photos, optimizer={"lr": 0.5, "name": "sgd"}, loss="focal", epochs=9)
    again = features.features(other, opened, tmp_path, CPU)
    assert torch.equal(first.train, again.train)
    assert [(one, one.stat().st_mtime_ns) for one in tmp_path.glob("*.safetensors")] == [(file, before)]


@pytest.mark.parametrize(
    "changes", [{"image_size": 64}, {"augment": {"flip": 0}}, {"seed": 1}, {"normalize": {"mean": 0.1, "std": 1}}]
)
def test_what_changes_the_features_asks_for_others(photos, opened, tmp_path, changes):
    for asked in (recipe(photos), recipe(photos, **changes)):
        features.features(asked, opened, tmp_path, CPU, views=2)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_other_weights_in_the_same_file_are_other_features(photos, opened, tmp_path):
    file = tmp_path / "weights.safetensors"
    for seed in (0, 1):
        net = features.network.build(recipe(photos, seed=seed).train, opened.sizes)
        save_weights(file, net.backbone.state_dict(), {})
        asked = recipe(photos, pretrained=True, weights=str(file))
        features.features(asked, opened, tmp_path / "kept", CPU, views=1)
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_features_too_large_for_16_bits_stay_whole():
    assert features._narrow(torch.tensor([1.0, 7e4])).dtype == torch.float32
    assert features._narrow(torch.tensor([1.0, 6e4])).dtype == torch.float16


# -------------------------------------------------------------------------------------------- probe
def test_a_head_that_can_learn_beats_one_that_cannot(photos, opened, tmp_path):
    rates = (1e-9, 3e-2)
    asked = [recipe(photos, optimizer={"name": "adamw", "lr": rate}) for rate in rates]
    still, learnt = probe.probe(asked, opened, tmp_path, CPU, epochs=8)
    assert still.score is not None
    assert learnt.score is not None
    assert learnt.score > still.score


def test_the_verdict_on_a_recipe_does_not_depend_on_its_company(photos, opened, tmp_path):
    kinds = ["focal", "cross_entropy", "dice", "logit_adjusted"]
    asked = [recipe(photos, loss=kind, balance=0.2 * n) for n, kind in enumerate(kinds)]
    asked += [recipe(photos, head={"name": "shared_mlp", "dropout": 0}), recipe(photos, optimizer="sgd")]
    asked += [recipe(photos, posterior={"fit": True}), recipe(photos, posterior={"tau": 0.5})]
    side_by_side = probe.probe(asked, opened, tmp_path, CPU, epochs=3)
    one_by_one = [probe.probe([one], opened, tmp_path, CPU, epochs=3)[0] for one in asked]
    for found, expected in zip(side_by_side, one_by_one, strict=True):
        assert found.score == pytest.approx(expected.score, abs=1.5 / 24 / 2)  # one answer of the 48 may tip


def test_what_frozen_features_cannot_tell_is_left_unjudged(photos, opened, tmp_path):
    small = {"name": "query2label", "width": 8, "heads": 2, "feed_forward": 8}
    asked = [recipe(photos, head=small), recipe(photos), recipe(photos, backbone="majority")]
    found = probe.probe(asked, opened, tmp_path, CPU, epochs=1)
    assert [one.score is None for one in found] == [True, False, True]
    assert "needs the map" in found[0].unjudged
    assert found[1].unjudged == ""
    assert not any(one.diverged for one in found)


def test_a_decay_that_ruins_the_head_is_told_as_such(photos, opened, tmp_path):
    asked = [recipe(photos, optimizer={"name": "sgd", "lr": 0.01, "weight_decay": by}) for by in (0.0, 1e38)]
    sound, ruined = probe.probe(asked, opened, tmp_path, CPU, epochs=2)
    assert sound.score is not None
    assert not sound.diverged
    assert ruined == probe.Verdict(diverged=True)


def test_the_schedule_of_a_recipe_is_drawn_together_to_the_epochs_of_the_probe(photos, opened, tmp_path):
    asked = recipe(photos, schedule={"name": "cosine", "warmup_epochs": 2}, epochs=4)
    found = features.features(asked, opened, tmp_path, CPU, views=1)
    bout = probe.Bout([asked.train], "overall_accuracy", opened, found, epochs=2)
    assert bout._factors(0.5).tolist() == [0.5]
    assert bout._factors(1.0).tolist() == [1.0]
    assert bout._factors(2.0).tolist() == pytest.approx([0.0])


@pytest.mark.slow
def test_as_a_process_it_takes_recipes_and_answers_with_verdicts(photos, cache):
    asked = [recipe(photos), recipe(photos, backbone="majority")]
    request = {"device": "cpu", "cache": str(cache), "epochs": 1}
    request |= {"recipes": [one.model_dump(mode="json") for one in asked]}
    ended = subprocess.run(
        [sys.executable, "-m", "trainers.probe"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = json.loads(ended.stdout.splitlines()[-1])
    assert 0 < first["score"] <= 1
    assert second == {"score": None, "diverged": False, "unjudged": "majority learns nothing"}
