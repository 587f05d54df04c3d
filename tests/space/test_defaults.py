import re

import pytest
import timm

from sweeper.space import defaults
from trainers.config import TrainConfig
from trainers.metrics.definitions import STANDARD, names

NAMES = ["mobilenetv2_100", "efficientnet_b3", "convnext_tiny.fb_in1k", "swin_tiny_patch4_window7_224", "van_b0"]
NAMES += ["vit_tiny_patch16_224", "resnet50.a1_in1k", "seresnext50_32x4d"]


def config(metric="overall_accuracy", **train):
    return TrainConfig.model_validate(defaults.filled(train, metric))


@pytest.mark.parametrize("backbone", NAMES)
def test_a_recipe_of_a_backbone_alone_has_its_familys_parts(backbone):
    made = config(backbone=backbone)
    line = defaults.family(backbone)
    assert re.match(line.pattern, backbone)
    assert (made.optimizer.lr, made.optimizer.layer_decay) == (line.lr, line.layer_decay)
    assert made.drop_path == line.drop_path
    assert made.augment.model_dump(mode="json", exclude_unset=True) == defaults.AUGMENT[line.augment]


@pytest.mark.parametrize("backbone", NAMES)
def test_small_networks_mix_images_average_their_weights_and_smooth_no_labels(backbone):
    made, small = config(backbone=backbone), backbone == "mobilenetv2_100"
    assert (made.augment.mixup > 0) == small
    assert (made.weight_averaging.name == "ema") == small
    assert (made.loss.label_smoothing == 0) == small


@pytest.mark.parametrize(("epochs", "long"), [(9, False), (10, True), (40, True)])
def test_a_short_training_has_no_time_for_strong_augmentation(epochs, long):
    made = config(backbone="mobilenetv2_100", epochs=epochs)
    assert (made.augment.mixup > 0) == (made.weight_averaging.name == "ema") == long
    assert made.augment.random_resized_crop.scale[0] == (0.35 if long else 0.5)
    assert (made.loss.label_smoothing == 0) == long


def test_a_part_that_is_written_stays_as_it_is_written():
    made = config(backbone="convnext_tiny", optimizer={"name": "sgd"}, augment={"horizontal_flip": 0}, drop_path=None)
    assert (made.optimizer.name, made.optimizer.layer_decay) == ("sgd", 1.0)
    assert (made.augment.horizontal_flip, made.augment.random_shift) == (0, 0)
    assert made.drop_path is None
    assert made.schedule.name == defaults.defaults("convnext_tiny", "macro_f1")["schedule"]["name"]


def test_random_weights_learn_at_one_rate():
    made = config(backbone="vit_tiny_patch16_224", pretrained=False)
    assert (made.optimizer.backbone_lr_scale, made.optimizer.layer_decay, made.drop_path) == (1.0, 1.0, None)


def test_a_job_on_record_is_not_filled_with_the_defaults_of_today():
    assert TrainConfig(backbone="swin_tiny_patch4_window7_224").drop_path is None
    assert TrainConfig(backbone="resnet50").tta.count == 1
    assert not TrainConfig(backbone="resnet50").posthoc_logit_adjustment.fit


def test_the_last_line_catches_every_name():
    assert defaults.family("a_name_nobody_has_seen") is defaults.TABLE[-1]


def test_every_line_catches_models_that_timm_has():
    names = timm.list_models()
    for line in defaults.TABLE:
        mine = [name for name in names if defaults.family(name) is line]
        assert mine or line.pattern == "van", line.pattern


def test_every_line_names_its_source():
    assert all(re.search(r"\d{4}|measured", line.source) for line in defaults.TABLE)


def test_predictions_look_at_mirror_images_only_where_training_did():
    assert config(backbone="resnet50").tta.flip
    assert not config(backbone="resnet50", augment={"horizontal_flip": 0}).tta.flip
    assert config(backbone="resnet50", tta={}).tta.count == 1


def test_a_correction_is_fitted_where_the_metric_is_a_mean_over_classes_and_the_recipe_does_not_mind():
    goals = ("overall_accuracy", "mean_class_accuracy", "macro_f1")
    assert [config(metric, backbone="a").posthoc_logit_adjustment.fit for metric in goals] == [False, True, True]
    assert not config("mean_class_accuracy", backbone="a", posthoc_logit_adjustment={}).posthoc_logit_adjustment.fit
    assert config(backbone="a", posthoc_logit_adjustment={"fit": True}).posthoc_logit_adjustment.fit


@pytest.mark.parametrize("metric", names())
def test_labels_are_smoothed_where_the_goal_is_an_answer_and_no_probability(metric):
    """With a fitted correction, means over classes gain from it as well: see docs/explanation/recipe-parts.md."""
    smoothing = 0.1 if metric in STANDARD else 0.0
    for train in ({"backbone": "resnet50"}, {"backbone": "van_b0", "pretrained": False}):
        assert config(metric, **train).loss.label_smoothing == smoothing
    written = {"name": "cross_entropy", "label_smoothing": 0.2}
    assert config(metric, backbone="resnet50", loss=written).loss.label_smoothing == 0.2
