"""Weights in folders as timm writes them: found by backbone, with the arguments and the normalization beside them."""

import json
import shutil
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from sweeper.space import yaml_io
from sweeper.space.space import Space
from trainers.config import Recipe, TrainConfig
from trainers.models import network
from trainers.models.preflight import problems
from trainers.support import weights_folder
from trainers.support.errors import EnvironmentFault

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
DESCRIBED = {
    "architecture": "test_resnet",
    "num_classes": 10,
    "model_args": {"output_stride": 32, "drop_rate": 0.1, "num_classes": 10, "zero_init_last": None},
    "pretrained_cfg": {"mean": MEAN, "std": STD, "classifier": "fc", "license": "mit"},
}
SPACE = """\
study: s
data: {{layout: folder, root: x}}
train: {{backbone: {backbone}, image_size: 32, weights: {weights}{more}}}
"""


def folder(place: Path, described: dict | None = None, file: str = "model.safetensors") -> Path:
    """timm's own folder of a tiny network."""
    place.mkdir(parents=True)
    torch.manual_seed(3)
    save_file(timm.create_model("test_resnet", num_classes=10).state_dict(), place / file)
    (place / "config.json").write_text(json.dumps(DESCRIBED if described is None else described))
    return place


def recipe(weights: Path, backbone: str = "test_resnet", more: str = "") -> Recipe:
    text = SPACE.format(backbone=backbone, weights=weights, more=more)
    return next(Space(yaml_io.read(Path("s.yaml"), text=text), ["c"]).recipes())


def test_timms_folder_gives_weights_arguments_and_normalization(tmp_path):
    train = recipe(folder(tmp_path / "w")).train
    assert train.backbone_args == {"output_stride": 32, "drop_rate": 0.1}
    net = network.build(train, [3])
    assert network.normalization(train, net) == (tuple(MEAN), tuple(STD))
    wanted = weights_folder.find(train.weights, "test_resnet").file
    assert wanted.name == "model.safetensors"
    torch.manual_seed(3)
    assert torch.equal(net.backbone.conv1[0].weight, timm.create_model("test_resnet", num_classes=10).conv1[0].weight)
    assert not problems([Recipe(data={"root": "x"}, train=train)])


def test_a_recipe_needs_the_folder_no_more_once_it_is_closed(tmp_path):
    found = recipe(folder(tmp_path / "w"))
    shutil.rmtree(tmp_path / "w")
    net = network.create(found.train)
    assert network.normalization(found.train, network.Network(net, torch.nn.Identity())) == (tuple(MEAN), tuple(STD))
    assert net.drop_rate == 0.1


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_of_folders_is_searched_by_backbone(tmp_path, file):
    folder(tmp_path / "all" / "test_resnet", file=file)
    save_file(timm.create_model("test_vit", num_classes=0).state_dict(), tmp_path / "all" / "test_vit.safetensors")
    assert recipe(tmp_path / "all").train.backbone_args == {"output_stride": 32, "drop_rate": 0.1}
    plain = recipe(tmp_path / "all", "test_vit", ", backbone_args: {img_size: 32}").train
    assert (plain.backbone_args, plain.normalize) == ({"img_size": 32}, "model")
    assert weights_folder.find(str(tmp_path / "all"), "test_resnet").file.name == file
    assert weights_folder.names(str(tmp_path / "all")) == ["test_resnet", "test_vit"]


def test_what_is_written_in_the_recipe_comes_first(tmp_path):
    more = ", normalize: imagenet, backbone_args: {drop_rate: 0.3}"
    train = recipe(folder(tmp_path / "w"), more=more).train
    assert train.normalize == "imagenet"
    assert train.backbone_args == {"output_stride": 32, "drop_rate": 0.3}


def test_what_the_folder_says_is_part_of_what_the_study_asks(tmp_path):
    text = SPACE.format(backbone="test_resnet", weights=folder(tmp_path / "w"), more="")
    asked = Space(yaml_io.read(Path("s.yaml"), text=text), ["c"]).identity()["train"]
    assert asked["normalize"] == {"mean": MEAN, "std": STD}
    assert asked["backbone_args"] == {"output_stride": 32, "drop_rate": 0.1}


def test_random_weights_take_nothing_of_a_folder(tmp_path):
    text = SPACE.format(backbone="test_resnet", weights=folder(tmp_path / "w"), more=", pretrained: false")
    train = next(Space(yaml_io.read(Path("s.yaml"), text=text), ["c"]).recipes()).train
    assert (train.backbone_args, train.normalize) == ({}, "model")


def test_weights_of_another_architecture_are_named_with_theirs(tmp_path):
    config = TrainConfig(backbone="test_vit", image_size=32, weights=str(folder(tmp_path / "w")))
    (problem,) = problems([Recipe(data={"root": "x"}, train=config)])
    assert (problem.where, problem.exit_code, problem.help[:26]) == (
        "train.backbone",
        2,
        "write backbone: test_resne",
    )


def test_a_folder_without_the_backbone_says_what_it_has(tmp_path):
    folder(tmp_path / "all" / "test_resnet")
    config = TrainConfig(backbone="test_vit", image_size=32, weights=str(tmp_path / "all"))
    (problem,) = problems([Recipe(data={"root": "x"}, train=config)])
    assert problem.exit_code == 3
    assert "the folder has test_resnet; use one of these as train.backbone," in problem.help


@pytest.mark.parametrize("text", ["", "[1]", "null", "{}", "{", '"x"', '{"architecture": "a", "model_args": 3}'])
def test_a_description_that_is_none_of_timms_is_named(tmp_path, text):
    place = folder(tmp_path / "w")
    (place / "config.json").write_text(text)
    with pytest.raises(EnvironmentFault, match=r"cannot read the description of the weights") as caught:
        recipe(place)
    assert caught.value.where == str(place / "config.json")


def test_an_argument_that_is_a_list_is_named(tmp_path):
    place = folder(tmp_path / "w", DESCRIBED | {"model_args": {"img_size": [32, 32]}})
    with pytest.raises(EnvironmentFault, match=r"model_args.img_size is \[32, 32\]"):
        recipe(place)


def test_the_description_of_an_older_timm_is_read(tmp_path):
    old = {"architecture": "test_resnet", "mean": MEAN, "std": STD, "license": "mit"}
    found = weights_folder.config(folder(tmp_path / "w", old) / "config.json")
    assert (found.mean, found.std, found.licence) == (tuple(MEAN), tuple(STD), "mit")


def test_weights_may_be_called_without_the_tag_of_the_backbone(tmp_path):
    untagged = tmp_path / "test_resnet.safetensors"
    untagged.touch()
    assert weights_folder.find(str(tmp_path), "test_resnet.r160_in1k").file == untagged
    tagged = tmp_path / "test_resnet.r160_in1k.safetensors"
    tagged.touch()
    assert weights_folder.find(str(tmp_path), "test_resnet.r160_in1k").file == tagged
    described = folder(tmp_path / "others" / "test_resnet")
    assert weights_folder.find(str(tmp_path / "others"), "test_resnet.r160_in1k").file.parent == described
    assert weights_folder.find(str(tmp_path / "none"), "test_resnet.r160_in1k").file == tmp_path / "none"
