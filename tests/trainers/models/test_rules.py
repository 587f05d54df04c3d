"""What `rules.weights` allows, by the names of timm's weights."""

import pytest

from trainers.config import Recipe, TrainConfig
from trainers.data_config import DataConfig
from trainers.models import preflight


def recipe(backbone: str, **more) -> Recipe:
    return Recipe(data=DataConfig(root="x"), train=TrainConfig(backbone=backbone, **more))


@pytest.mark.parametrize(
    "backbone",
    ["resnet50.a1_in1k", "convnext_tiny.fb_in1k", "mobilenetv3_large_100.ra_in1k", "vit_base_patch16_224.sam_in1k"],
)
def test_weights_of_imagenet_1k_alone_are_allowed(backbone):
    assert preflight.forbidden([recipe(backbone)], "in1k") == []


@pytest.mark.parametrize(
    "backbone",
    [
        "convnext_tiny.fb_in22k_ft_in1k",
        "vit_base_patch16_224.augreg2_in21k_ft_in1k",
        "resnet50.fb_ssl_yfcc100m_ft_in1k",
        "resnext101_32x8d.fb_wsl_ig1b_ft_in1k",
        "tf_efficientnet_b0.ns_jft_in1k",
        "vit_base_patch16_clip_224.openai_ft_in1k",
        "convnext_base.clip_laion2b_augreg_ft_in1k",
        "regnety_160.swag_ft_in1k",
        "vit_small_patch14_dinov2.lvd142m",
        "resnet50_clip.openai",
    ],
)
def test_weights_of_more_are_refused_with_what_would_do(backbone):
    (problem,) = preflight.forbidden([recipe(backbone), recipe(backbone)], "in1k")
    assert problem.exit_code == 2
    assert problem.what.startswith("rules.weights: in1k allows only weights of ImageNet-1k")
    assert problem.help


def test_the_advice_is_allowed_itself():
    (problem,) = preflight.forbidden([recipe("convnext_tiny.fb_in22k_ft_in1k")], "in1k")
    names = problem.help.removeprefix("allowed are ").split(", ")
    assert "convnext_tiny.fb_in1k" in names
    assert preflight.forbidden([recipe(name) for name in names], "in1k") == []


def test_a_name_without_a_tag_stands_for_timms_own_choice():
    assert preflight.forbidden([recipe("resnet50")], "in1k") == []
    (problem,) = preflight.forbidden([recipe("vit_base_patch16_224")], "in1k")
    assert "in21k" in problem.what


def test_random_weights_are_always_allowed():
    for rule in ("any", "in1k", "none"):
        assert preflight.forbidden([recipe("convnext_tiny.fb_in22k_ft_in1k", pretrained=False)], rule) == []


def test_no_published_weights_at_all():
    (problem,) = preflight.forbidden([recipe("resnet50.a1_in1k")], "none")
    assert "starts from them" in problem.what
    assert "pretrained=false" in problem.help


def test_of_a_local_file_nobody_knows_and_that_is_said():
    local = recipe("resnet50", weights="weights/mine.safetensors")
    assert preflight.forbidden([local], "in1k") == []
    assert preflight.unjudged([local], "in1k") == [
        "rules.weights: in1k cannot be checked for weights/mine.safetensors: make sure that you know what they were"
        " trained on"
    ]
    assert preflight.unjudged([local], "any") == []
