"""Open values are suggested, listed, counted and closed to recipes; spaces are told apart."""

import json
import random
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from sweeper.space import defaults
from sweeper.space.space import Space, difference
from sweeper.space.yaml_io import read, recipe_yaml
from trainers.data.challenge import FASHION
from trainers.data_config import Framing
from trainers.support.errors import UserError

SPACES = Path(__file__).parents[2] / "search_spaces"
SMOOTHED = "{name: cross_entropy, label_smoothing: {uniform: [0, 0.2]}}"
CATEGORIES = ["material", "fabric"]
HEAD = "study: s\ndata: {root: d}\nbudget: {trials: 3}\n"
BRANCHES = (
    "{choice: [{name: cosine, warmup_epochs: {choice: [0, 1, 3]}}, {name: step, every: {int: [1, 5]}}, plateau]}"
)


def space(train: str, head: str = HEAD, categories: list[str] = CATEGORIES) -> Space:
    """The space of `train`, a YAML mapping on one line, beside a backbone."""
    path = Path("space.yaml")
    path.write_text(f"{head}train: {{backbone: b, {train}}}\n")
    return Space(read(path), categories)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    optuna.logging.set_verbosity(optuna.logging.WARNING)


# ---------------------------------------------------------------------------------------- names
def test_open_values_are_named_by_dotted_path_and_branch():
    names = space(f"loss: {{name: focal, gamma: {{uniform: [0, 5]}}}}, schedule: {BRANCHES}").names
    assert names == ["loss.gamma", "schedule", "schedule.cosine.warmup_epochs", "schedule.step.every"]


def test_each_is_one_open_value_a_category():
    names = space("loss: {name: focal, category_weights: {per_category: {uniform: [0.5, 1.5]}}}").names
    assert names == ["loss.category_weights.material", "loss.category_weights.fabric"]


def test_a_choice_is_labelled_by_value_name_or_text():
    found = space(
        "schedule: {choice: [{name: step, every: 2}, {name: step, every: 3}, cosine]},"
        "optimizer: {name: adam, betas: {choice: [[0.9, 0.99], [0.8, 0.99]]}},"
        "normalize: {choice: [imagenet, {mean: 0.5, std: 0.5}]},"
        "augment: {mixup: {choice: [0, {uniform: [0.1, 0.4]}]}}, clip_norm: {choice: [null, 1.0]}"
    )
    assert found.distributions() == {
        "schedule": "choice [step, step_2, cosine]",
        "optimizer.betas": 'choice ["[0.9, 0.99]", "[0.8, 0.99]"]',
        "normalize": 'choice [imagenet, "{mean: 0.5, std: 0.5}"]',
        "augment.mixup": "choice [0, uniform]",
        "augment.mixup.uniform": "uniform [0.1, 0.4]",
        "clip_norm": "choice [null, 1.0]",
    }


def test_a_branch_without_a_name_that_has_open_values_goes_by_its_index():
    found = space("normalize: {choice: [imagenet, {mean: {uniform: [0.4, 0.6]}, std: 0.5}]}")
    assert found.names == ["normalize", "normalize.1.mean"]


# -------------------------------------------------------------------------------------- recipes
def test_parameters_close_the_space_to_a_recipe():
    found = space(f"schedule: {BRANCHES}, loss: {{name: focal, gamma: {{uniform: [0, 5]}}}}")
    train = found.recipe({"schedule": "step", "schedule.step.every": 4, "loss.gamma": 1.5}).train
    assert (train.schedule.name, train.schedule.every, train.loss.gamma) == ("step", 4, 1.5)
    assert found.recipe({"schedule": "plateau", "loss.gamma": 0.0}).train.schedule.name == "plateau"


def test_a_chosen_list_is_closed_to_the_list():
    found = space("optimizer: {name: adam, betas: {choice: [[0.9, 0.99], [0.8, 0.99]]}}")
    assert found.recipe({"optimizer.betas": "[0.8, 0.99]"}).train.optimizer.betas == (0.8, 0.99)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "the parameter schedule is missing"),
        ({"schedule": "cosine"}, "the parameter schedule.cosine.warmup_epochs is missing"),
        ({"schedule": "cosin"}, "the parameter schedule cannot be cosin"),
        ({"schedule": "plateau", "schedule.step.every": 2}, "there is no parameter schedule.step.every here"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(params: dict[str, Any], message: str):
    with pytest.raises(UserError) as caught:
        space(f"schedule: {BRANCHES}").recipe(params)
    assert message in str(caught.value)


def test_every_published_space_suggests_recipes_it_accepts_back():
    for path in sorted(SPACES.rglob("*.yaml")):
        found, rng = Space(read(path), list(FASHION.values())), random.Random(0)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=rng.randrange(100)))
        for _ in range(20):
            trial = study.ask()
            params = found.suggest(trial)
            assert params == trial.params
            assert json.loads(json.dumps(params)) == params
            assert found.recipe(params) == found.recipe(dict(reversed(params.items())))


def test_optuna_is_asked_for_ranges_as_written():
    found = space(
        "optimizer: {name: adamw, lr: {loguniform: [1e-5, 1e-3]}}, batch_size: {logint: [8, 64]},"
        "epochs: {int: [2, 8], step: 3}, augment: {horizontal_flip: {uniform: [0, 1], step: 0.25}}"
    )
    trial = optuna.create_study().ask()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found.suggest(trial)
    assert trial.distributions == {
        "optimizer.lr": optuna.distributions.FloatDistribution(1e-5, 1e-3, log=True),
        "batch_size": optuna.distributions.IntDistribution(8, 64, log=True),
        "epochs": optuna.distributions.IntDistribution(2, 8, step=3),
        "augment.horizontal_flip": optuna.distributions.FloatDistribution(0, 1, step=0.25),
    }


# ------------------------------------------------------------------------------------- defaults
def test_the_first_trial_has_the_defaults_of_a_recipe_as_far_as_they_are_offered():
    found = space(
        "optimizer: {name: adamw, lr: {loguniform: [1e-5, 1e-1]}}, batch_size: {logint: [8, 128]},"
        "epochs: {int: [2, 8], step: 3},"
        "augment: {horizontal_flip: {uniform: [0, 1]}, random_shift: {choice: [0, 0.125]},"
        "random_resized_crop: {choice: [{scale: [{uniform: [0.2, 0.9]}, 1]}, null]}, "
        "color_jitter: {hue: {uniform: [0, 0.1]}}}"
    )
    assert found.default() == [
        {
            "optimizer.lr": 1e-3,
            "batch_size": 32,
            "epochs": 5,
            "augment.horizontal_flip": 0.5,
            "augment.random_shift": 0,
            "augment.random_resized_crop": "0",
            "augment.random_resized_crop.0.scale.0": 0.5,
            "augment.color_jitter.hue": 0.0,
        }
    ]


def test_the_first_trial_of_a_backbone_has_its_familys_rates():
    path = Path("s.yaml")
    train = "{backbone: {choice: [convnext_tiny, vit_tiny]}, drop_path: {uniform: [0, 0.05]}, optimizer: "
    path.write_text(HEAD + f"train: {train}{{name: adamw, layer_decay: {{uniform: [0.5, 1]}}}}}}\n")
    first, second = Space(read(path), CATEGORIES).default()
    for params in (first, second):
        usual = defaults.defaults(params["backbone"], "overall_accuracy")
        assert params["optimizer.layer_decay"] == usual["optimizer"]["layer_decay"]
        assert params["drop_path"] == 0.05  # the nearest that is offered
    assert first["optimizer.layer_decay"] != second["optimizer.layer_decay"]


def test_the_first_trial_takes_the_branch_that_is_usual_and_of_another_its_own_defaults():
    found = space(
        "loss: {choice: [{name: focal, gamma: {uniform: [0, 5]}}, {name: cross_entropy, label_smoothing: "
        "{uniform: [0, 0.3]}}]}, optimizer: {name: sgd, lr: {loguniform: [1e-3, 1]}}"
    )
    usual = {"loss": "cross_entropy", "loss.cross_entropy.label_smoothing": 0.1, "optimizer.lr": 0.1}
    assert found.default() == [usual]


def test_a_search_begins_with_smoothing_unless_its_metric_takes_probabilities():
    text = "train: {backbone: a, loss: {name: cross_entropy, label_smoothing: {uniform: [0, 0.3]}}}"
    for metric, smoothing in (("overall_accuracy", 0.1), ("macro_recall", 0.1), ("log_loss", 0.0)):
        found = Space(read(written(f"metric: {metric}\n{text}")), CATEGORIES)
        assert found.default() == [{"loss.label_smoothing": smoothing}]


@pytest.mark.parametrize(
    ("augment", "smoothing"),
    [
        ("{mixup: 0.2}", 0.0),
        ("{cutmix: 1.0}", 0.0),
        ("{mixup: {choice: [0.2, 0.0]}}", 0.0),  # the family mixes, and the search decides
        ("{horizontal_flip: 0.5}", 0.1),
        ("{mixup: 0}", 0.1),
        ("{random_resized_crop: {scale: [{uniform: [0.3, 0.9]}, 1.0]}}", 0.1),
    ],
)
def test_a_search_starts_with_smoothing_where_its_file_mixes_no_images(augment, smoothing):
    train = f"train: {{backbone: mobilenetv2_100, epochs: 12, augment: {augment}, loss: {SMOOTHED}}}"
    (found,) = Space(read(written(train)), CATEGORIES).default()
    assert found["loss.label_smoothing"] == smoothing


def test_there_is_one_default_a_backbone():
    path = Path("s.yaml")
    path.write_text(HEAD + "train: {backbone: {choice: [a, b, c]}, epochs: {int: [1, 3]}}\n")
    found = Space(read(path), CATEGORIES)
    assert found.default() == [{"backbone": name, "epochs": 2} for name in "abc"]


def test_optuna_takes_the_defaults_as_first_trials():
    found = Space(read(SPACES / "focal_weights.yaml"), CATEGORIES)
    study = optuna.create_study()
    for params in found.default():
        study.enqueue_trial(params)
    assert [found.suggest(study.ask()) for _ in found.default()] == found.default()


def test_the_preflight_sees_every_backbone_at_every_size():
    path = Path("s.yaml")
    path.write_text(HEAD + "train: {backbone: {choice: [a, b]}, image_size: {int: [64, 96], step: 32}}\n")
    found = Space(read(path), CATEGORIES)
    pairs = [(recipe.train.backbone, recipe.train.image_size) for recipe in found.recipes()]
    assert sorted(pairs) == [("a", 64), ("a", 96), ("b", 64), ("b", 96)]
    assert found.largest_image_size == 96


SIZE = "{height: 256, width: 192}"


@pytest.mark.parametrize(
    ("train", "framing"),
    [
        ("image_size: 96", Framing()),
        (f"image_size: {SIZE}", Framing()),  # squashed from squares
        (f"image_size: {SIZE}, fit: pad", Framing("pad", 4, 3)),
        ("image_size: 96, fit: center", Framing("center", 1, 1)),
        ("image_size: {choice: [64, 96]}, fit: pad", Framing("pad", 1, 1)),
        (f"image_size: {{choice: [{SIZE}, {{height: 128, width: 96}}]}}, fit: pad", Framing("pad", 4, 3)),
        (f"image_size: {{choice: [{SIZE}, 64]}}", Framing()),
    ],
)
def test_all_images_of_a_study_are_decoded_in_one_way(train, framing):
    assert space(train).framing == framing


@pytest.mark.parametrize(
    "train",
    [
        "fit: {choice: [pad, squash]}",
        f"image_size: {{choice: [{SIZE}, 64]}}, fit: pad",
        "image_size: {height: {int: [64, 96], step: 32}, width: 64}, fit: center",
    ],
)
def test_a_study_that_wants_its_images_in_several_ways_is_refused(train):
    with pytest.raises(UserError, match="decoded in one way") as caught:
        _ = space(train).framing
    assert caught.value.where.startswith("space.yaml:4:") == ("fit" in train)


def test_a_size_may_be_tall_and_is_written_as_it_was_read():
    found = space(f"image_size: {SIZE}, fit: pad")
    (recipe,) = found.recipes()
    assert (recipe.train.input_size, found.largest_image_size, found.is_square) == ((256, 192), 256, False)
    Path("again.yaml").write_text(recipe_yaml("again", recipe))
    assert list(Space(read(Path("again.yaml")), CATEGORIES).recipes()) == [recipe]
    assert space("image_size: 64").is_square


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ("{height: 8, width: 64}", r"image_size\.height must be at least 16"),
        ("{height: 64}", r"train\.image_size must be"),
        ("{height: 64, wide: 64}", r"unknown key 'wide' in train\.image_size"),
        ("8", r"train\.image_size must be at least 16"),
        ("tall", r"train\.image_size must be a whole number"),
    ],
)
def test_a_size_that_is_none_is_refused(size, said):
    with pytest.raises(UserError, match=said):
        space(f"image_size: {size}")


@pytest.mark.parametrize(
    ("train", "window"),
    [
        ("augment: {}", 1.0),
        ("augment: {random_shift: 0.125}", 0.875),
        ("augment: {random_shift: {choice: [0.125, 0]}}", 0.875),
        ("augment: {random_shift: {uniform: [0, 0.5]}}", 0.5),
        ("augment: {random_resized_crop: {scale: [{uniform: [0.25, 0.9]}, 1]}}", 0.5),
        ("augment: {random_resized_crop: {choice: [null, {scale: [0.25, 1]}, {scale: [0.5, 1]}]}}", 0.5),
        (
            "augment: {random_resized_crop: {scale: [{choice: [0.64, 0.25]}, 1]}, random_shift: {choice: [0, 0.5]}}",
            0.25,
        ),
        (
            "augment: {choice: [{horizontal_flip: 0}, {random_resized_crop: {scale: [0.25, 1]}}]}",
            0.5,
        ),
        ("pretrained: false", 0.875),  # the family's own
        ("pretrained: {choice: [false, true]}", 0.35**0.5),
    ],
)
def test_the_smallest_window_is_that_of_any_trial(train, window):
    found = Space(read(written(f"train: {{backbone: {{choice: [test_resnet, resnet18]}}, {train}}}")), CATEGORIES)
    assert found.smallest_window == pytest.approx(window)


# --------------------------------------------------------------------------------------- finite
def test_configurations_of_a_finite_space_are_all_there_once_conditions_included():
    found = space(
        f"schedule: {BRANCHES}, batch_size: {{choice: [32, 64]}},"
        "augment: {horizontal_flip: {uniform: [0, 1], step: 0.5}}"
    )
    every = list(found.configurations())
    assert found.size == len(every) == (3 + 5 + 1) * 2 * 3
    assert len({found.recipe(params).model_dump_json() for params in every}) == len(every)


def test_a_continuous_space_has_no_size_and_no_list_of_configurations():
    found = space("loss: {name: focal, gamma: {uniform: [0, 5]}}, batch_size: {choice: [1, 2]}")
    assert found.size is None
    with pytest.raises(UserError, match=r"a grid tries every value, but loss\.gamma has infinitely many"):
        next(found.configurations())


def test_a_closed_recipe_is_a_space_of_one():
    found = space("epochs: 3")
    assert (found.size, found.names, found.default(), list(found.configurations())) == (1, [], [{}], [{}])


def test_configurations_are_lazy():
    ranges = ", ".join(f"k{index}: {{int: [1, 1000]}}" for index in range(20))
    found = space(f"backbone_args: {{{ranges}}}")
    assert found.size == 1000**20
    assert len(next(found.configurations())) == 20


def test_steps_leave_no_dust():
    found = space("augment: {horizontal_flip: {uniform: [0, 1], step: 0.1}}")
    assert [params["augment.horizontal_flip"] for params in found.configurations()][3] == 0.3


# ------------------------------------------------------------------------------------- identity
def changes(old: str, new: str, **heads: str) -> list[str]:
    before, after = space(old).identity(), space(new, **heads).identity()
    return difference(json.loads(json.dumps(before)), after)


def test_the_same_space_has_no_difference():
    train = f"schedule: {BRANCHES}, loss: {{name: focal, category_weights: {{per_category: {{uniform: [0, 1]}}}}}}"
    assert changes(train, train) == []


def test_budget_search_and_study_are_not_identity():
    head = "study: t  # a comment\ndata: {root: d}\nbudget: {hours: 1}\nsearch: {sampler: random, seed: 3}\n"
    assert changes("epochs: {int: [1, 3]}", "epochs: {int: [1, 3]}", head=head) == []


def test_writing_a_default_out_changes_nothing():
    assert changes("loss: focal", "loss: {name: focal, gamma: 2}, epochs: 20") == []
    assert (
        changes("augment: {rotation: 5}", "augment: {rotation: 5, horizontal_flip: 0.5, color_jitter: {hue: 0}}")
        == []
    )
    assert (
        changes("schedule: {choice: [cosine, step]}", "schedule: {choice: [{name: cosine, min_lr_ratio: 0}, step]}")
        == []
    )


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ("epochs: {int: [1, 5]}", "epochs: {int: [1, 3]}", ["train.epochs: int [1, 5] -> int [1, 3]"]),
        (
            "epochs: {int: [1, 5]}",
            "epochs: {int: [1, 5], step: 2}",
            ["train.epochs: int [1, 5] -> int [1, 5] step 2"],
        ),
        ("epochs: {int: [1, 5]}", "epochs: 4", ["train.epochs: int [1, 5] -> 4"]),
        ("seed: 0", "epochs: {int: [1, 5]}", ["train.epochs: 20 -> int [1, 5]"]),
        (
            "batch_size: {choice: [32, 64]}",
            "batch_size: {choice: [64, 32]}",
            ["train.batch_size: choice [32, 64] -> choice [64, 32]"],
        ),
        (
            "schedule: {choice: [cosine, {name: step, every: {int: [1, 5]}}]}",
            "schedule: {choice: [cosine, {name: step, every: {int: [1, 3]}}]}",
            ["train.schedule.step.every: int [1, 5] -> int [1, 3]"],
        ),
        (
            "loss: {name: focal, category_weights: {material: 1.5}}",
            "loss: {name: focal, category_weights: {fabric: 1.5}}",
            [
                "train.loss.category_weights.fabric: left out -> 1.5",
                "train.loss.category_weights.material: 1.5 -> left out",
            ],
        ),
    ],
)
def test_a_difference_is_told_a_line_a_value(old: str, new: str, lines: list[str]):
    assert changes(old, new) == lines


def test_another_metric_and_other_data_are_differences():
    head = "study: s\ndata: {root: e}\nmetric: macro_f1\nbudget: {trials: 3}\n"
    train = "epochs: 3, loss: cross_entropy, posthoc_logit_adjustment: {}"  # whose defaults depend on the metric
    assert changes(train, train, head=head) == ["data.root: d -> e", "metric: overall_accuracy -> macro_f1"]


# -------------------------------------------------------------------------------------- judging
def test_category_weights_are_not_judged_when_no_category_is_known():
    assert space("loss: {name: focal, category_weights: {anything: 2}}", categories=[]).size == 1


def test_both_ends_of_a_range_are_judged():
    with pytest.raises(UserError) as low:
        space("augment: {horizontal_flip: {uniform: [-1, 0.5]}}")
    with pytest.raises(UserError) as high:
        space("augment: {horizontal_flip: {uniform: [0.5, 2]}}")
    assert "at least 0, found -1.0" in str(low.value)
    assert "at most 1, found 2.0" in str(high.value)


@pytest.mark.parametrize("scale", ["2", "1e-4", "0", "{loguniform: [1e-4, 1]}"])
def test_an_absolute_rate_of_the_backbone_is_refused(scale: str):
    with pytest.raises(UserError, match=r"backbone_lr_scale must be at (least 0.001|most 1), found"):
        space(f"optimizer: {{name: adamw, backbone_lr_scale: {scale}}}")


def test_a_hole_inside_a_list_is_named_by_its_index():
    found = space("optimizer: {name: adam, betas: [{uniform: [0.8, 0.95]}, 0.99]}")
    assert found.recipe({"optimizer.betas.0": 0.85}).train.optimizer.betas == (0.85, 0.99)


def test_a_value_knows_its_place_in_the_file(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("study: s\ndata: {root: x}\ntrain:\n  backbone: resnet18\n  epochs: 2\n")
    space = Space(read(path), [])
    assert space.place("train.backbone") == f"{path}:4:13"
    assert space.place("train.weights") == f"{path}: train.weights"
    assert space.place("weights/x.safetensors") == "weights/x.safetensors"


@pytest.mark.parametrize(
    ("train", "place"),
    [
        ("backbone: b\n  image_size: 96", ":5:15"),
        ("backbone: b\n  image_size: {choice: [64, 96]}", ":5:29"),
        ("backbone: b\n  image_size: {int: [32, 96], step: 32}", ":5:26"),
        ("backbone: b", ""),  # 224 by itself
    ],
)
def test_a_written_size_below_the_networks_input_is_refused_where_the_input_stands(tmp_path, train, place):
    path = tmp_path / "s.yaml"
    path.write_text(f"study: s\nbudget: {{trials: 1}}\ntrain:\n  {train}\ndata: {{root: d, size: 64}}\n")
    with pytest.raises(UserError, match=r"is larger than data.size 64") as caught:
        Space(read(path), [])
    assert caught.value.where.endswith(place or "s.yaml")
    assert "leave data.size out" in caught.value.help


def test_a_derived_size_may_be_below_the_networks_input():
    """The files may hold no more than that."""
    spec = read(written("train: {backbone: b, image_size: 96}"))
    spec = replace(spec, data=spec.data.model_copy(update={"size": 64}), derived=("data.size",))
    assert Space(spec, []).recipe({}).derived == ("data.size",)


def test_the_former_name_of_a_selection_is_answered():
    for value in ("goal", "{choice: [goal, loss]}"):
        with pytest.raises(UserError, match=r"train\.selection: 'goal' was renamed to 'metric'"):
            Space(read(written(f"train: {{backbone: b, selection: {value}}}")), [])


# ------------------------------------------------------------------------------------- what is left out
def test_a_closed_recipe_keeps_its_nulls_where_leaving_out_means_the_familys(tmp_path):
    found = Space(read(written("train: {backbone: convnext_tiny, drop_path: null}")), CATEGORIES)
    (recipe,) = found.recipes()
    assert recipe.train.drop_path is None
    path = tmp_path / "again.yaml"
    path.write_text(recipe_yaml("again", recipe))
    assert list(Space(read(path), CATEGORIES).recipes()) == [recipe]


def test_what_families_give_is_part_of_what_a_study_asks(monkeypatch):
    text = "train: {backbone: convnext_tiny, pretrained: {choice: [true, false]}}"
    before = Space(read(written(text)), CATEGORIES).identity()
    monkeypatch.setattr(defaults, "TABLE", tuple(line._replace(lr=line.lr / 2) for line in defaults.TABLE))
    changed = difference(before, Space(read(written(text)), CATEGORIES).identity())
    assert len(changed) == 1
    assert changed[0].startswith("train.optimizer.convnext_tiny.lr")


def test_a_correction_is_fitted_by_itself_where_the_goal_is_a_mean_over_classes():
    for metric, fit in (("overall_accuracy", False), ("mean_class_accuracy", True)):
        (recipe,) = Space(read(written(f"metric: {metric}\ntrain: {{backbone: a}}")), CATEGORIES).recipes()
        assert recipe.train.posthoc_logit_adjustment.fit is fit


def test_the_first_trial_takes_a_list_that_is_usual():
    found = space("tta: {flip: true, scales: {choice: [[1.0], [1.0, 1.15]]}}")
    assert found.default() == [{"tta.scales": "[1.0, 1.15]"}]


def written(text: str) -> Path:
    path = Path("s.yaml")
    path.write_text(HEAD + text + "\n")
    return path
