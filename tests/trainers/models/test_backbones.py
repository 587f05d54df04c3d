"""What is said of timm's backbones: names, figures, licence, and where the weights are."""

import json

import pytest
import timm
import torch

from sweeper.engine import presets
from trainers.models import backbones


def described(name: str, weights: str = "") -> backbones.Backbone:
    return backbones.describe(name, weights, {}, fetch=False)


def test_parameters_and_multiply_adds_are_those_that_are_published():
    found = described("mobilenetv3_large_100.ra_in1k")  # Howard et al. 2019, table 3: 5.4 M and 219 M
    assert found.parameters == sum(p.numel() for p in timm.create_model("mobilenetv3_large_100").parameters())
    assert found.macs == pytest.approx(219e6, rel=0.02)
    assert (found.input_size, found.fixed_size, found.licence) == (224, False, "apache-2.0")


def test_a_transformer_is_built_for_one_size():
    assert described("test_vit").fixed_size


def test_a_part_of_a_name_finds_architectures_with_the_tag_of_their_weights():
    assert "mobilenetv3_small_100.lamb_in1k" in backbones.matching("MobileNetV3_small")
    assert "resnet18.a1_in1k" in backbones.matching("resnet18*")


def test_a_pattern_with_a_dot_finds_all_published_weights():
    found = backbones.matching("resnet18.a")
    assert {"resnet18.a1_in1k", "resnet18.a3_in1k"} <= set(found)


@pytest.mark.parametrize(
    ("written", "meant"),
    [("ViT-B16", "vit_base_patch16_224"), ("resnet-50", "resnet50"), ("Swin-T", "swin_tiny_patch4_window7_224")],
)
def test_a_spelling_of_people_is_answered_with_the_name(written, meant):
    assert meant in backbones.answer({"pattern": written})["near"]


def test_names_that_timm_does_not_have_are_left_out():
    names = ["no_such_net", "resnet18.no_such_tag", "mobilenetv2_100_same", "test_resnet"]
    assert [one["name"] for one in backbones.answer({"names": names})["backbones"]] == ["test_resnet"]


def test_what_was_counted_is_not_counted_again():
    known = {"test_resnet": {"parameters": 1, "macs": 2}}
    (found,) = backbones.answer({"names": ["test_resnet"], "counted": known})["backbones"]
    assert (found["parameters"], found["macs"]) == (1, 2)


def test_weights_in_a_folder_are_at_hand_with_their_licence(tmp_path):
    place = tmp_path / "test_resnet"
    place.mkdir()
    (place / "model.safetensors").write_bytes(b"")
    (place / "config.json").write_text(json.dumps({"architecture": "test_resnet", "license": "mit"}))
    found = described("test_resnet", str(tmp_path))
    assert (found.weights, found.licence) == ("local", "mit")
    assert described("test_vit", str(tmp_path)).weights != "local"


def test_a_network_that_needs_memory_is_listed_without_figures(monkeypatch):
    def needy(name: str) -> torch.nn.Module:
        return torch.nn.Linear(int(torch.ones(1).item()), 1)

    monkeypatch.setattr(timm, "create_model", needy)
    assert (described("test_resnet").parameters, described("test_resnet").macs) == (None, None)


@pytest.mark.parametrize("kind", list(presets.TABLE))
def test_every_backbone_of_the_presets_has_published_weights(kind):
    published = set(timm.list_pretrained())
    assert [name for name in presets.backbones(kind) if name not in published] == []
