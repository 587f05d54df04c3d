"""The planner of hours: what fits, what gives way first, and what is refused, from paces that a formula answers."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sweeper.engine import presets
from sweeper.errors import UserError
from sweeper.space import yaml_io
from sweeper.space.space import Space
from sweeper.study import planner
from sweeper.study.planner import Planner
from sweeper.system.devices import Slot
from trainers.config import Recipe
from trainers.data.table import Category, Row, Table

PACE = 100.0  # images a second at 128 px
SEARCHED = "train: {optimizer: {name: adamw, lr: {loguniform: [1e-4, 1e-2]}}}"


def timed(recipes: Sequence[Recipe], size: int | None) -> list[dict[str, Any]]:
    """A network whose time grows with its pixels, and a little beside that."""
    answers = []
    for recipe in recipes:
        fast = 2.0 if "small" in recipe.train.backbone else 1.0
        fixed = recipe.train.backbone.startswith("vit")
        side = size if size and not fixed else max(recipe.train.input_size)
        scale = 0.9 * (side / 128) ** 2 + 0.1
        paces = {"train_images_per_second": PACE * fast / scale, "val_images_per_second": 4 * PACE * fast / scale}
        answers.append({**paces, "fixed_size": fixed, "side": side, "seconds": 0.0})
    return answers


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """The only picture of the data set."""
    Image.new("RGB", (300, 200)).save(tmp_path / "a.png")
    return tmp_path


def made(
    folder: Path, hours: float, more: str = SEARCHED, *, slots: int = 1, retrains: bool = True, device: str = "cpu"
) -> Planner:
    path = folder / "mine.yaml"
    path.write_text(f"data: {{layout: folder, root: photos}}\nbudget: {{hours: {hours}}}\n{more}\n")
    spec = presets.filled(yaml_io.read(path), lambda: device)
    counts = {"train": 800, "val": 200, "test": 200}
    rows = tuple(Row("a.png", split, None, (0,), "") for split, count in counts.items() for _ in range(count))
    table = Table(folder, (Category("kind", ("a", "b")),), rows)
    places = [Slot(f"cpu.{n}") for n in range(slots)]
    return Planner(spec, Space(spec, ["kind"]), table, places, retrains, timed)


def cost(one: Planner) -> float:
    """Seconds of the preset's own training."""
    one.measure(None)
    return one.shape(*max((shape.size, shape.epochs) for shape in one.shapes())).trial


# ------------------------------------------------------------------------------------------ what fits
@pytest.mark.parametrize("hours", [0.15, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 5, 20])
@pytest.mark.parametrize("preset", ["fast", "good", "best"])
def test_what_is_planned_fits_and_leaves_little(photo, preset, hours):
    one = made(photo, hours, f"preset: {preset}\n{SEARCHED}")
    try:
        plan = one.plan()
    except UserError:
        assert hours < 3
        return
    spent = plan.start_seconds + plan.trials * plan.trial_seconds + plan.models * plan.final_seconds
    assert spent <= hours * 3600
    own = presets.TABLE["cpu"][preset]
    assert own.epochs / 2 <= plan.epochs <= own.epochs
    assert own.image_size / 2 <= plan.values["image_size"] <= own.image_size
    if plan.trials >= planner.WANTED and (plan.epochs, plan.values["image_size"]) != (own.epochs, own.image_size):
        assert spent >= 0.9 * hours * 3600


def test_with_time_enough_the_preset_stays_as_it_is(photo):
    plan = made(photo, 100).plan()
    assert plan.values == {"image_size": 128, "epochs": 10}
    assert plan.trials > 100


def test_with_less_time_pixels_and_epochs_give_way_alike(photo):
    whole = cost(made(photo, 1))
    plan = made(photo, 1.6 * whole / 3600).plan()
    assert plan.trials >= planner.WANTED
    assert plan.values["image_size"] < 128
    assert plan.epochs < 10


def test_where_little_more_than_two_of_the_shortest_fit_these_are_planned(photo):
    one = made(photo, 1)
    one.measure(64)
    least = one.shape(64, 5)
    plan = made(photo, (one.start + 2.2 * least.trial + least.final) / 3600).plan()
    assert (plan.trials, plan.values) == (2, {"image_size": 64, "epochs": 5})


@pytest.mark.parametrize("slots", [1, 2])
def test_pixels_and_epochs_come_before_a_third_trial(photo, slots):
    """Up to five trials gain less than twice the pixels do: see docs/explanation/defaults.md."""
    whole = cost(made(photo, 1))
    plan = made(photo, (2 / slots + 1.6) * whole / 3600, slots=slots).plan()
    assert (plan.trials, plan.values) == (2, {"image_size": 128, "epochs": 10})


@pytest.mark.parametrize("share", [1.05, 1.5, 2.0])
def test_where_not_even_two_fit_the_default_is_trained_once_on_all_images(photo, share):
    one = made(photo, 1)
    one.measure(64)
    plan = made(photo, share * one.shape(64, 5).final / 3600).plan()
    assert plan.once
    assert plan.final_seconds <= plan.hours * 3600
    few = (
        f"too few for a search (--hours {plan.search_hours:g} would do), so the default is trained once on train and"
    )
    assert few in plan.line
    assert plan.model_copy(update={"hours": plan.search_hours}).trials >= 2
    assert plan.model_copy(update={"hours": 0.85 * plan.search_hours}).trials < 2
    if share == 2.0:
        assert plan.final_seconds > one.shape(64, 5).final
    assert not plan.model_copy(update={"hours": 10}).once


@pytest.mark.parametrize(("hours", "seconds"), [(0.01, 2.0), (0.1, 3.6), (0.5, 10.0), (8, 10.0)])
def test_networks_are_timed_for_a_hundredth_of_the_hours_within_bounds(photo, hours, seconds):
    assert planner.timed_seconds(made(photo, hours).spec) == pytest.approx(seconds)


def test_slots_work_side_by_side(photo):
    one, two = made(photo, 3).plan(), made(photo, 3, slots=2).plan()
    assert two.trials == 2 * two.rounds
    assert two.trials > one.trials
    assert "2 side by side" in two.line


def test_a_space_of_few_configurations_is_not_planned_beyond_them(photo):
    plan = made(photo, 20, "train: {optimizer: {name: adamw, lr: {choice: [0.001, 0.002]}}}").plan()
    assert plan.trials == 2


def test_new_seeds_of_the_best_have_their_time_up_to_their_share(photo):
    plain = made(photo, 5).plan()
    all_of_them = made(photo, 5, f"search: {{confirm: {{top: 2, seeds: 1}}}}\n{SEARCHED}", slots=2).plan()
    assert all_of_them.again == all_of_them.trial_seconds
    most = made(photo, 5, f"search: {{confirm: {{top: 4, seeds: 90, share: 0.5}}}}\n{SEARCHED}").plan()
    assert most.again == 2.5 * 3600
    assert most.trials < plain.trials
    assert "+ new seeds 2h30m + 2 retrainings" in most.line
    assert "new seeds" not in plain.line


def test_without_a_retraining_its_time_is_for_trials(photo):
    kept, spent = made(photo, 5).plan(), made(photo, 5, retrains=False).plan()
    assert spent.trials > kept.trials
    assert "retraining" in kept.line
    assert "retraining" not in spent.line


def test_of_several_backbones_the_retraining_is_of_the_slowest(photo):
    both = "mobilenetv3_small_100.lamb_in1k, mobilenetv3_large_100.ra_in1k"
    plan = made(photo, 50, f"preset: good\ntrain: {{backbone: {{choice: [{both}]}}}}").plan()
    slow = made(photo, 50).plan()
    assert plan.trial_seconds < slow.trial_seconds
    assert plan.final_seconds == slow.final_seconds


def test_the_default_of_the_slowest_backbone_fits_before_the_retraining(photo):
    """Two trials side by side end with the slower of them, however fast the other is."""
    both = "mobilenetv3_small_100.lamb_in1k, mobilenetv3_large_100.ra_in1k"
    one = made(photo, 0.07, f"preset: good\ntrain: {{backbone: {{choice: [{both}]}}}}", slots=2)
    plan = one.plan()
    assert plan.rounds == 1
    assert plan.first_seconds == plan.slowest_seconds > plan.trial_seconds
    assert plan.start_seconds + plan.slowest_seconds + plan.final_seconds <= 0.07 * 3600
    longer = plan.model_copy(update={"slowest_seconds": 0.07 * 3600 - plan.final_seconds})
    assert longer.rounds == 0


# ------------------------------------------------------------------------------------------ what stays
@pytest.mark.parametrize(
    ("train", "values"),
    [
        ("image_size: 96", {"epochs"}),
        ("epochs: 3", {"image_size"}),
        ("epochs: 3, image_size: 96", set()),
        ("epochs: {int: [2, 5]}", {"image_size"}),
    ],
)
@pytest.mark.parametrize("hours", [1, 20])
def test_what_is_written_is_not_planned(photo, train, values, hours):
    one = made(photo, hours, f"preset: good\ntrain: {{loss: {{name: focal, gamma: {{uniform: [0, 2]}}}}, {train}}}")
    assert set(one.plan().values) == values


@pytest.mark.parametrize(("side", "size"), [(40, 64), (90, 96), (110, 96), (1000, 128)])
def test_no_more_pixels_than_the_images_have(tmp_path, side, size):
    Image.new("RGB", (side + 10, side - 10)).save(tmp_path / "a.png")
    assert made(tmp_path, 100).plan().values["image_size"] == size


def test_a_network_of_one_size_keeps_it(photo):
    plan = made(
        photo, 1, "preset: good\ntrain: {backbone: vit_tiny_patch16_224, drop_path: {uniform: [0, 0.2]}}"
    ).plan()
    assert "image_size" not in plan.values


def test_the_size_that_is_chosen_was_measured(photo):
    one = made(photo, 0.3)
    plan = one.plan()
    assert plan.values["image_size"] in one.answers[0]


def test_nothing_is_timed_at_a_size_above_that_of_the_images(tmp_path):
    Image.new("RGB", (120, 100)).save(tmp_path / "a.png")
    one = made(tmp_path, 100, f"preset: best\n{SEARCHED}")
    plan = one.plan()
    assert [set(known) for known in one.answers] == [{96}]
    assert one.answers_for(plan) == [one.answers[0][96]]


def test_beside_a_network_of_one_size_the_others_are_timed_at_their_own(photo):
    both = "vit_tiny_patch16_224, mobilenetv3_large_100.ra_in1k"
    one = made(photo, 5, f"preset: best\ntrain: {{backbone: {{choice: [{both}]}}}}")
    plan = one.plan()
    assert "image_size" not in plan.values
    assert 192 in one.answers[1]
    assert one.answers_for(plan) is None


# ------------------------------------------------------------------------------------------ too few
@pytest.mark.parametrize("more", [SEARCHED, "train: {}", "preset: best\ntrain: {epochs: 5, image_size: 160}"])
@pytest.mark.parametrize("retrains", [True, False])
def test_hours_too_few_for_one_training_are_refused_with_those_that_would_do(photo, more, retrains):
    with pytest.raises(UserError, match=r"0\.002 h are too few for one training of \d+ epochs at \d+ px") as caught:
        made(photo, 0.002, more, retrains=retrains).plan()
    assert ("on train and val" in caught.value.what) == retrains
    found = re.search(r"--hours ([\d.]+)", caught.value.help)
    assert found
    assert made(photo, float(found[1]), more, retrains=retrains).plan().trials >= 0
    less = float(found[1]) * 0.8
    with pytest.raises(UserError):
        made(photo, less, more, retrains=retrains).plan()


@pytest.mark.parametrize("confirm", ["", "search: {confirm: {top: 4, seeds: 3}}", "search: {confirm: {share: 0.5}}"])
def test_the_hours_that_would_do_for_a_search_do(photo, confirm):
    more = f"{confirm}\npreset: best\n{SEARCHED.replace('{optimizer', '{epochs: 5, image_size: 160, optimizer')}"
    plan = made(photo, 0.05, more).plan()
    assert plan.once
    assert f"--hours {plan.search_hours:g} would do" in plan.line
    assert not made(photo, plan.search_hours, more).plan().once
    assert made(photo, plan.search_hours * 0.85, more).plan().once


def test_trials_of_several_lengths_are_planned_as_the_longest(photo):
    def trials(epochs: str) -> int:
        more = f"preset: best\n{SEARCHED.replace('{optimizer', '{image_size: 96, epochs: ' + epochs + ', optimizer')}"
        plan = made(photo, 8, more).plan()
        assert plan.epochs == 40
        return plan.trials

    assert trials("{choice: [5, 40]}") == trials("40") > 1


@pytest.mark.parametrize(("hours", "digits"), [(0.0372, 0.038), (1.0, 1.0), (11.2, 12), (123, 130)])
def test_hours_are_rounded_upwards(hours, digits):
    assert math.isclose(planner.rounded_up(hours), digits)


# ------------------------------------------------------------------------------------------ more hours
def test_more_hours_are_more_trials_of_the_same_length(photo):
    plan = made(photo, 2).plan()
    more = plan.model_copy(update={"hours": 4})
    assert more.trials >= 2 * plan.trials
    assert more.epochs == plan.epochs


@pytest.mark.parametrize(
    ("pairs", "line"),
    [
        (False, "2 h = 6 trials of 10 epochs at 128 px (16m each) + retraining 20m"),
        (True, "2 h = 4 trials of 10 epochs at 128 px (16m each) + 2 retrainings (20m each)"),
    ],
)
def test_a_plan_is_one_line(photo, pairs, line):
    assert replace_values(made(photo, 5).plan()).model_copy(update={"pairs": pairs}).line == line


# ------------------------------------------------------------------------------------------ two models
def test_a_second_model_is_retrained_if_three_full_trials_fit_beside_both(photo):
    """With fewer, pixels, epochs and trials come first."""
    whole = made(photo, 100).plan()
    enough = whole.start_seconds + 3 * whole.trial_seconds + 2 * whole.final_seconds + whole.combining
    two, one = made(photo, 1.001 * enough / 3600).plan(), made(photo, 0.99 * enough / 3600).plan()
    assert (two.models, two.trials, two.values) == (2, 3, {"image_size": 128, "epochs": 10})
    assert (one.models, one.values) == (1, two.values)
    assert one.trials > 3
    assert two.document()["models"] == 2


@pytest.mark.parametrize(
    ("more", "options"),
    [("rules: {ensemble: false}", {}), ("", {"retrains": False}), ("", {"slots": 2})],
)
def test_only_a_single_slot_that_may_combine_models_retrains_two_in_turn(photo, more, options):
    plan = made(photo, 100, f"{SEARCHED}\n{more}", **options).plan()
    assert plan.models == 1
    assert plan.trials > 100


def test_two_trials_of_a_space_with_no_more_are_enough_for_a_second_model(photo):
    two = "train: {optimizer: {name: adamw, lr: {choice: [1e-3, 2e-3]}}}"
    plan = made(photo, 100, two).plan()
    assert (plan.trials, plan.models) == (2, 2)


def replace_values(plan: Any) -> Any:
    known = {"hours": 2.0, "trial_seconds": 960.0, "final_seconds": 1200.0, "epochs": 10, "image_size": "128"}
    return plan.model_copy(update=known)


# ------------------------------------------------------------------------------------------ folds
def test_a_trial_of_folds_costs_as_many_trainings_each_on_its_share_of_train_and_val(photo):
    """4 x (750 trained, 250 judged) against 800 and 200; the retraining is one on all, and judges no epoch."""
    plain, parted = made(photo, 10), made(photo, 10, f"{SEARCHED}\nsearch: {{folds: 4}}")
    for one in (plain, parted):
        one.measure(None)
    alone, four = (one.shape(None, 10) for one in (plain, parted))
    fit, look = plain.seconds(plain.recipes[0], plain.answers[0], None)
    assert alone.trial == pytest.approx(planner.TRIAL_S + 10 * (800 * fit + 200 * look))
    assert four.trial == pytest.approx(planner.TRIAL_S + 4 * 10 * (750 * fit + 250 * look))
    views = plain.recipes[0].train.tta.count
    assert alone.final == pytest.approx(plain.start + planner.TRIAL_S + 10 * 1000 * fit + 200 * look * views)
    assert four.final == pytest.approx(alone.final + 200 * look * 4)  # each fold's model predicts test
    assert "4 folds of 10 epochs" in parted.as_plan(four).line
