"""What torch.compile compiles: the steps of training, once for each shape and each set of layers that learn."""

import logging
from functools import partial

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from trainers.config import Recipe
from trainers.loading.batches import Data
from trainers.support import device
from trainers.train import train

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # dynamo's own, in torch 2.9


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch):
    """Graphs are made, and run as they are."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    yield
    torch.compiler.reset()
    torch._dynamo.config.fail_on_recompile_limit_hit = False


@pytest.fixture(scope="module")
def data(photos, cache):
    return Data.open(photos, cache)


def graphs(photos, data, folder, micro_batch=None, **more):
    """How many there are after each epoch."""
    base = {"backbone": "test_resnet", "pretrained": False, "image_size": 32, "batch_size": 16, "epochs": 4}
    counters.clear()
    epochs = train(Recipe(data=photos, train=base | {"compile": True} | more), data, folder, micro_batch=micro_batch)
    return [counters["stats"]["unique_graphs"] for _ in epochs]


def said(caplog):
    return [one.message for one in caplog.records if one.name == device.__name__]


def test_evaluation_is_not_compiled(photos, data, tmp_path):
    assert graphs(photos, data, tmp_path, epochs=1) == [1]


@pytest.mark.slow
def test_pieces_of_two_sizes_are_two_graphs(photos, data, tmp_path):
    assert graphs(photos, data, tmp_path, micro_batch=6, epochs=2) == [2, 2]


@pytest.mark.slow
def test_every_stage_of_a_thaw_is_a_graph(photos, data, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 2)
    found = graphs(photos, data, tmp_path, freeze={"epochs": 1, "gradual_epochs": 4}, epochs=7)
    assert found == [1, 2, 3, 4, 5, 6, 6]
    assert not said(caplog)


def test_a_network_that_takes_too_many_graphs_goes_on_uncompiled_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr(device, "GRAPHS", 2)
    net = nn.Linear(3, 2)
    compiled = device.Compiled(net)
    with caplog.at_level(logging.WARNING, logger=device.__name__):
        for count in range(1, 6):
            x = torch.randn(count, 3)
            torch.testing.assert_close(compiled(x), net(x))
    assert said(caplog) == ["torch.compile has made 2 graphs of this network, the limit: it continues uncompiled"]
