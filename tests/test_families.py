import re

import pytest
import timm

from trainers import families
from trainers.config import Recipe, TrainConfig

NAMES = ["mobilenetv2_100", "efficientnet_b3", "convnext_tiny.fb_in1k", "swin_tiny_patch4_window7_224", "van_b0"]
NAMES += ["vit_tiny_patch16_224", "resnet50.a1_in1k", "seresnext50_32x4d"]


@pytest.mark.parametrize("backbone", NAMES)
def test_a_recipe_of_a_backbone_alone_has_its_familys_parts(backbone):
    config = TrainConfig(backbone=backbone)
    line = families.family(backbone)
    assert re.match(line.pattern, backbone)
    assert (config.optimizer.lr, config.optimizer.layer_decay) == (line.lr, line.layer_decay)
    assert config.drop_path == line.drop_path
    assert config.augment.model_dump(include=set(families.AUGMENT[line.augment])) == families.AUGMENT[line.augment]


def test_a_part_that_is_written_stays_as_it_is_written():
    config = TrainConfig(backbone="convnext_tiny", optimizer="sgd", augment={"flip": 0}, drop_path=None)
    assert (config.optimizer.name, config.optimizer.layer_decay) == ("sgd", 1.0)
    assert (config.augment.flip, config.augment.crop) == (0, "none")
    assert config.drop_path is None
    assert config.schedule.name == families.defaults("convnext_tiny")["schedule"]["name"]


def test_random_weights_learn_at_one_rate():
    config = TrainConfig(backbone="vit_tiny_patch16_224", pretrained=False)
    assert (config.optimizer.backbone_lr, config.optimizer.layer_decay, config.drop_path) == (1.0, 1.0, None)


def test_the_last_line_catches_every_name():
    assert families.family("a_name_nobody_has_seen") is families.TABLE[-1]


def test_every_line_catches_models_that_timm_has():
    names = timm.list_models()
    for line in families.TABLE:
        mine = [name for name in names if families.family(name) is line]
        assert mine or line.pattern == "van", line.pattern


def test_every_line_names_its_source():
    assert all(re.search(r"\d{4}|measured", line.source) for line in families.TABLE)


def test_a_config_read_back_is_the_same():
    config = TrainConfig(backbone="swin_tiny_patch4_window7_224")
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config


def test_predictions_look_at_mirror_images_only_where_training_did():
    assert TrainConfig(backbone="resnet50").tta.flip
    assert not TrainConfig(backbone="resnet50", augment={"flip": 0}).tta.flip
    assert TrainConfig(backbone="resnet50", tta={}).tta.count == 1


def test_a_correction_is_fitted_where_the_goal_is_a_mean_over_classes_and_the_recipe_does_not_mind():
    def fits(goal, **posterior):
        return Recipe(data={"root": "x"}, goal=goal, train={"backbone": "a", "posterior": posterior}).fits

    assert [fits(goal) for goal in ("overall_accuracy", "mean_class_accuracy", "macro_f1")] == [False, True, True]
    assert not fits("mean_class_accuracy", fit=False)
    assert not fits("mean_class_accuracy", tau=0.5)
    assert fits("overall_accuracy", fit=True)
