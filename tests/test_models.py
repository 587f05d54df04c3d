import json
import subprocess
import sys

import pytest
import timm
import torch
from conftest import SHARED

from trainers.checkpoint import save_weights
from trainers.config import Recipe, TrainConfig
from trainers.errors import EnvironmentFault
from trainers.models import network
from trainers.models.check import problems


def config(**more):
    return TrainConfig(**({"backbone": "test_resnet", "pretrained": False, "image_size": 32} | more))


def recipe(**more):
    return Recipe(data={"root": "x"}, train=config(**more))


def only(**more):
    found = problems([recipe(**more)])
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_convnext", "mobilenetv3_small_050"])
def test_a_network_gives_one_logit_a_class(backbone):
    net = network.build(config(backbone=backbone, image_size=64), [3, 2]).eval()
    assert net(torch.randn(2, 3, 64, 64)).shape == (2, 5)


def test_the_seed_decides_the_weights():
    one, same, other = (network.build(config(seed=seed), [3]).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


def test_a_transformer_takes_the_recipes_image_size():
    net = network.build(config(backbone="test_vit", image_size=96), [3]).eval()
    assert net(torch.randn(1, 3, 96, 96)).shape == (1, 3)


def test_local_weights_are_loaded_without_their_classifier(tmp_path):
    donor = timm.create_model("test_resnet", num_classes=10)
    save_weights(tmp_path / "w.safetensors", donor.state_dict(), {})
    net = network.build(config(pretrained=True, weights=str(tmp_path / "w.safetensors")), [3])
    assert torch.equal(net.backbone.conv1[0].weight, donor.conv1[0].weight)


def test_a_folder_of_weights_is_searched_by_backbone(tmp_path):
    donor = timm.create_model("test_resnet", num_classes=0)
    save_weights(tmp_path / "test_resnet.safetensors", donor.state_dict(), {})
    net = network.build(config(pretrained=True, weights=str(tmp_path)), [3])
    assert torch.equal(net.backbone.conv1[0].weight, donor.conv1[0].weight)


def test_weights_of_another_network_are_refused(tmp_path):
    save_weights(tmp_path / "w.safetensors", timm.create_model("test_vit").state_dict(), {})
    with pytest.raises(EnvironmentFault, match=r"conv1.0.weight is missing"):
        network.build(config(pretrained=True, weights=str(tmp_path / "w.safetensors")), [3])


def test_normalization_is_the_backbones_the_usual_one_or_the_recipes():
    vit = network.build(config(backbone="vit_tiny_patch16_224"), [3])
    assert network.normalization(config(), vit) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert network.normalization(config(normalize="imagenet"), vit) == network.IMAGENET
    own = config(normalize={"mean": 0.3, "std": [0.1, 0.2, 0.3]})
    assert network.normalization(own, vit) == ((0.3, 0.3, 0.3), (0.1, 0.2, 0.3))


def test_convolutional_networks_are_channels_last_and_transformers_are_not():
    assert network.channels_last(config(), timm.create_model("test_resnet"))
    assert not network.channels_last(config(), timm.create_model("test_vit"))
    assert not network.channels_last(config(channels_last=False), timm.create_model("test_resnet"))


def test_an_unknown_backbone_is_named_with_its_neighbours():
    problem = only(backbone="resnet5o")
    assert (problem.what, problem.exit_code) == ("timm has no model 'resnet5o'", 2)
    assert "'resnet50'" in problem.help


def test_an_unknown_set_of_weights_is_named_with_the_known_ones():
    problem = only(backbone="resnet50.a9_in1k")
    assert problem.what == "'resnet50' has no weights named 'a9_in1k'"
    assert "a1_in1k" in problem.help


def test_a_size_that_a_network_cannot_take_is_named_with_sizes_that_fit():
    problem = only(backbone="test_convnext", image_size=16)
    assert "cannot take images of 16 pixels" in problem.what
    assert problem.help.startswith("sizes that fit: 32")


def test_an_argument_that_a_network_does_not_know_is_named():
    assert "unexpected keyword argument 'padd'" in only(backbone_args={"padd": "x"}).what


def test_absent_local_weights_are_an_environments_fault(tmp_path):
    problem = only(pretrained=True, weights=str(tmp_path / "none.safetensors"))
    assert (problem.where, problem.exit_code) == ("train.weights", 3)
    assert "--set train.weights=PATH" in problem.help


def test_a_hub_that_does_not_answer_is_said_with_the_ways_out(tmp_path):
    request = json.dumps({"recipes": [recipe(pretrained=True).model_dump(mode="json")]})
    closed = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "PATH": ""}
    ended = subprocess.run(
        [sys.executable, "-m", "trainers.models.check"], input=request, env=closed, capture_output=True, text=True
    )
    (problem,) = json.loads(ended.stdout)
    assert problem["exit_code"] == 3
    assert "test_resnet" in problem["what"]
    for way_out in ("train.weights=PATH", "HF_HOME", "train.pretrained=false"):
        assert way_out in problem["help"]


def test_good_recipes_have_no_problem():
    assert problems([recipe(), recipe(backbone="test_vit", image_size=64)]) == []


@pytest.mark.skipif(not (SHARED / "weights").exists(), reason="no real weights beside the project")
def test_real_published_weights_fit_their_backbone():
    path = SHARED / "weights" / "mobilenetv2_100_same.safetensors"
    real = {"backbone": "mobilenetv2_100", "backbone_args": {"pad_type": "same"}, "weights": str(path)}
    assert problems([recipe(pretrained=True, image_size=64, **real)]) == []
