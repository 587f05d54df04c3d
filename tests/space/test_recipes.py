"""The five systems and the baseline as recipes: what was published stands in them, and they train."""

import json
import re
import zipfile
from pathlib import Path

import pytest

from sweeper.space.space import Space
from sweeper.space.yaml_io import read
from tests.support.cli import sweep
from trainers.config import TrainConfig
from trainers.data.demo import draw

RECIPES = Path(__file__).parents[2] / "search_spaces" / "recipes"
CATEGORIES = ["texture", "sleeve", "length", "neckline", "material", "fit"]
BY_HAND = {"texture": 0.95, "sleeve": 0.85, "length": 0.85, "neckline": 0.9, "material": 1, "fit": 0.9}
PUBLISHED = {
    "convnext_focal_2023": {
        "backbone": "convnext_large.fb_in1k",
        "head": {"name": "relu_logits"},
        "loss": {"name": "focal", "gamma": 2, "category_reduction": "sum", "class_weights": "none"},
        "optimizer": {"name": "adam", "lr": 1e-3, "weight_decay": 0},
        "schedule": {"name": "step", "every": 2, "factor": 0.8},
        "selection": "last",
        "augment": {"horizontal_flip": 0.5, "random_resized_crop": None, "random_shift": 0},
        "epochs": 50,
        "batch_size": 64,
    },
    "swin_query2label_2024": {
        "head": {"name": "query2label", "width": 768, "feed_forward": 3072, "heads": 4, "dropout": 0.3},
        "loss": {"name": "cross_entropy", "class_weights": "inverse_frequency", "label_smoothing": 0},
        "optimizer": {"name": "adam", "lr": 1e-4, "weight_decay": 1e-3, "betas": [0.9, 0.999]},
        "schedule": {"name": "cosine", "warmup_epochs": 0},
        "augment": {"random_shift": 0.104, "horizontal_flip": 0.5, "mixup": 0, "cutmix": 0, "rotation": 0},
        "clip_norm": 1.0,
        "selection": "metric",
        "epochs": 20,
        "batch_size": 64,
    },
    "resnet_class_weights_2024": {
        "head": {"name": "category_mlp", "hidden": 512, "dropout": 0.5},
        "loss": {"name": "cross_entropy", "class_weights": "inverse_frequency", "category_reduction": "sum"},
        "optimizer": {"name": "sgd", "momentum": 0.9, "lr": 1e-4, "weight_decay": 1e-4},
        "schedule": {"name": "plateau", "patience": 5, "factor": 0.1},
        "augment": {"random_resized_crop": {"scale": [0.35, 1]}, "noise": 0.1},
        "epochs": 50,
        "batch_size": 32,
    },
    "seresnet_box_2021": {
        "backbone": "seresnet50.ra2_in1k",
        "head": {"name": "logits_mlp", "layers": 0, "dropout": 0.1},
        "loss": {"name": "focal", "gamma": 2, "category_weights": BY_HAND},
        "optimizer": {"name": "adam", "lr": 1e-3},
        "schedule": {"name": "constant"},
        "selection": "metric",
        "epochs": 40,
        "batch_size": 32,
    },
    "van_asymmetric_2024": {
        "backbone": "van_b0",
        "head": {"name": "shared_mlp", "hidden": [100, 200, 100], "dropout": 0.3},
        "loss": {"name": "asymmetric", "over": "softmax", "gamma_negative": 4, "gamma_positive": 1, "margin": 0.05},
        "optimizer": {"name": "adam", "lr": 5e-4, "weight_decay": 3e-4},
        "schedule": {"name": "cosine", "warmup_epochs": 0},
        "augment": {
            "horizontal_flip": 0.5,
            "rotation": 20,
            "color_jitter": {"brightness": 0.1, "hue": 0.05},
            "mixup": 0.2,
            "mixup_classes": "minority",
        },
        "selection": "metric",
        "epochs": 100,
    },
}
HEADS = {
    "convnext_focal_2023": ("2023", "overall accuracy", ".84167", "197,793,362", "A40"),
    "swin_query2label_2024": ("2024", "mean class accuracy", ".7266", "217,465,646", "RTX 6000 Ada"),
    "resnet_class_weights_2024": ("2024", "mean class accuracy", ".67967", "29,826,138", "Tesla P100"),
    "seresnet_box_2021": ("2021", "overall accuracy", ".8265", "28,114,050", "Machine: not published"),
    "van_asymmetric_2024": ("2024", "mean class accuracy", ".62883", "4,174,426", "RTX 4060 Ti"),
}
SMALL = {"train.epochs": "1", "train.pretrained": "false", "train.image_size": "64", "train.batch_size": "8"}
STAND_INS = {  # where the system itself wants more than 2 GB or a minute for an epoch of this
    "convnext_focal_2023": {"train.backbone": "test_convnext"},
    "swin_query2label_2024": {"train.backbone": "van_b0"},
    "van_asymmetric_2024": {"train.weights": "null"},
}


def space(name: str) -> Space:
    return Space(read(RECIPES / f"{name}.yaml"), CATEGORIES)


def train(name: str) -> TrainConfig:
    return space(name).recipe({}).train


def parts(published: dict, recipe: dict) -> dict:
    """The keys of `recipe` that `published` speaks of."""
    return {
        key: parts(value, recipe[key]) if isinstance(value, dict) else recipe[key] for key, value in published.items()
    }


def head(name: str) -> str:
    """The comment at the top of a recipe, on one line."""
    lines = (RECIPES / f"{name}.yaml").read_text().splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_nothing_is_left_open_in_a_recipe(path):
    found = Space(read(path), [])
    assert (found.size, found.names) == (1, [])
    assert read(path).study == path.stem


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_system_has_the_settings_that_were_published(name):
    assert parts(PUBLISHED[name], train(name).model_dump(mode="json")) == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_system_reads_224_pixels_with_the_means_of_imagenet(name):
    assert (train(name).image_size, train(name).normalize, train(name).pretrained) == (224, "imagenet", True)


@pytest.mark.parametrize("name", PUBLISHED)
def test_no_default_of_a_backbones_family_slips_into_a_system(name):
    """Each says for itself what its paper said, or that it said nothing."""
    known = train(name)
    assert (known.drop_path, known.optimizer.backbone_lr_scale, known.optimizer.layer_decay) == (None, 1, 1)
    assert (
        known.weight_averaging.name,
        known.balanced_sampling,
        known.progressive_resizing.start,
        known.freeze.epochs,
    ) == (
        "none",
        0,
        1,
        0,
    )


@pytest.mark.parametrize("name", [*PUBLISHED, "majority"])
def test_no_system_corrects_its_predictions_or_looks_twice(name):
    assert not space(name).recipe({}).train.posthoc_logit_adjustment.fit
    assert (train(name).posthoc_logit_adjustment.tau, train(name).tta.count) == (0, 1)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_system_is_judged_as_its_year_was_and_cut_to_boxes_where_it_was(name):
    recipe = space(name).recipe({})
    year = name[-4:]
    assert recipe.metric == ("mean_class_accuracy" if year == "2024" else "overall_accuracy")
    assert recipe.data.crop == ("box" if year == "2021" else "none")


@pytest.mark.parametrize("name", HEADS)
def test_a_system_tells_its_year_metric_score_parameters_and_machine(name):
    missing = [fact for fact in HEADS[name] if fact not in head(name)]
    assert missing == []


def test_resizing_to_250_and_cutting_out_224_is_a_shift_by_one_tenth():
    assert train("swin_query2label_2024").augment.random_shift == pytest.approx(1 - 224 / 250, abs=1e-3)


def test_every_recipe_is_a_published_system_the_baseline_or_picked_by_hand():
    assert {path.stem for path in RECIPES.glob("*.yaml")} == {*PUBLISHED, "majority", "clothing_by_hand"}


@pytest.fixture(scope="module")
def garments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes")
    draw(folder / "data" / "FashionDataset", images=(32, 12, 6), seed=0)
    return folder


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("name", [*PUBLISHED, "majority"])
def test_a_recipe_trains_and_ends_in_a_submission(garments, name):
    """ConvNeXt-L and Swin-L have small stand-ins here, with their own heads and settings; the others are whole."""
    sets = (SMALL | STAND_INS.get(name, {})) if name != "majority" else {}
    words = [word for pair in sets.items() for word in ("--set", "=".join(pair))]
    ended = sweep(garments, "run", str(RECIPES / f"{name}.yaml"), *words, "--inline", "--no-mlflow", SWEEP_TRAINER="")
    assert ended.returncode == 0, ended.stderr
    ended = sweep(garments, "best", name, "--export", "submission", "--no-mlflow", "--json", SWEEP_TRAINER="")
    assert ended.returncode == 0, ended.stderr
    with zipfile.ZipFile(json.loads(ended.stdout)["submission"]["path"]) as archive:
        assert archive.namelist() == ["prediction.txt"]
        lines = archive.read("prediction.txt").decode("ascii").splitlines()
    assert len(lines) == 6
    assert all(re.fullmatch(r"\d( \d){5}", line) for line in lines)
