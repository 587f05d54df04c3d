"""What people write of habit is answered with the line to write."""

from pathlib import Path

import pytest

from sweeper.space import hints
from sweeper.space.space import Space
from sweeper.space.yaml_io import read
from trainers.support.errors import UserError

HEAD = "data: {layout: folder, root: d}\nbudget: {trials: 3}\n"


def refused(tmp_path: Path, train: str, head: str = HEAD) -> UserError:
    path = tmp_path / "s.yaml"
    path.write_text(f"{head}train: {{{train}}}\n")
    with pytest.raises(UserError) as caught:
        Space(read(path), ["garment"])
    assert ":" in caught.value.where
    return caught.value


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ("optimizer: {lr: {values: [0.001, 0.01]}}", "write {choice: [0.001, 0.01]}"),
        ("optimizer: {lr: {min: 0.0001, max: 0.01}}", "write {loguniform: [0.0001, 0.01]}"),
        ("optimizer: {lr: {low: 0.0001, high: 0.01, log: true}}", "write {loguniform: [0.0001, 0.01]}"),
        ("augment: {horizontal_flip: {min: 0, max: 1}}", "write {uniform: [0, 1]}"),
        ("epochs: {min: 3, max: 9}", "write {int: [3, 9]}"),
        ("loss: {values: [focal, dice]}", "write {choice: [focal, dice]}"),
        ("epochs: {value: 3}", "write 3"),
        ("optimizer: {lr: {grid_search: [0.001, 0.01]}}", "write {choice: [0.001, 0.01]}"),
        ("epochs: {values: [3, 5], probabilities: [0.2, 0.8]}", "write {choice: [3, 5]}"),
        (
            "optimizer: {lr: {distribution: log_uniform_values, min: 0.01, max: 0.1}}",
            "write {loguniform: [0.01, 0.1]}",
        ),
        ("optimizer: {lr: {type: float, low: 0.01, high: 0.1, log: true}}", "write {loguniform: [0.01, 0.1]}"),
        ("epochs: {distribution: q_uniform, min: 10, max: 100, q: 10}", "write {int: [10, 100], step: 10}"),
        ("batch_size: {distribution: q_log_uniform_values, min: 8, max: 64}", "write {logint: [8, 64]}"),
        ("augment: {mixup: {lower: 0.1, upper: 0.4}}", "write {uniform: [0.1, 0.4]}"),
    ],
)
def test_an_open_value_of_another_tool_is_answered_with_ours(tmp_path, written, line):
    error = refused(tmp_path, f"backbone: b, {written}")
    assert error.what.startswith("unknown distribution")
    assert error.help == line


@pytest.mark.parametrize(
    ("written", "line"),
    [
        (
            "optimizer: {name: adamw, lr: [0.0001, 0.01]}",
            "{choice: [0.0001, 0.01]}; to search between them, write {loguniform: [0.0001, 0.01]}",
        ),
        ("epochs: [3, 6, 9]", "to try each of them, write {choice: [3, 6, 9]}"),
        ("loss: [focal, dice]", "to try each of them, write {choice: [focal, dice]}"),
    ],
)
def test_a_list_is_answered_with_a_choice(tmp_path, written, line):
    assert line in refused(tmp_path, f"backbone: b, {written}").help


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ("optimizer: {name: adamw, lr: 'tune.loguniform(1e-4, 1e-1)'}", "write {loguniform: [0.0001, 0.1]}"),
        ("optimizer: {name: adamw, lr: 'loguniform(0.01, 0.1)'}", "write {loguniform: [0.01, 0.1]}"),
        ("epochs: 'tune.randint(3, 9)'", "write {int: [3, 8]}"),
        ("epochs: 'ray.tune.quniform(10, 50, 5)'", "write {int: [10, 50], step: 5}"),
        ("epochs: 'tune.choice([3, 5])'", "write {choice: [3, 5]}"),
        ("loss: \"tune.choice(['focal', 'dice'])\"", "write {choice: [focal, dice]}"),
    ],
)
def test_a_call_of_another_library_is_answered_with_ours(tmp_path, written, line):
    assert refused(tmp_path, f"backbone: b, {written}").help == line


@pytest.mark.parametrize("text", ["", "abc", "f()", "tune.choice(x)", "normal(0, 1", "uniform('a', 'b')", "f(1)"])
def test_what_is_no_distribution_of_a_library_is_not_answered(text):
    assert not hints.called(text)


def test_names_that_are_the_users_own_are_no_open_values(tmp_path):
    weights = "loss: {name: focal, category_weights: {low: 1, high: 2}}"
    assert "unknown category 'low'" in refused(tmp_path, f"backbone: b, {weights}").what


@pytest.mark.parametrize("key", [key for key in hints.HABITS if key not in ("metric", "monitor", "model")])
def test_habitual_keys_are_answered(tmp_path, key):
    assert refused(tmp_path, f"backbone: b, {key}: 1").help == hints.HABITS[key]
    assert refused(tmp_path, "backbone: b", f"{HEAD}{key}: 1\n").help == hints.HABITS[key]


@pytest.mark.parametrize(
    ("key", "place"), [("epochs", "train.epochs"), ("lr", "train.optimizer.lr"), ("trials", "budget.trials")]
)
def test_a_key_in_the_wrong_place_is_answered_with_its_place(tmp_path, key, place):
    assert refused(tmp_path, "backbone: b", f"{HEAD}{key}: 1\n").help == f"did you mean '{place}'?"


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("metric: f1", "macro_f1"),
        ("metric: balanced_accuracy", "mean_class_accuracy"),
        ("metric: acc", "overall_accuracy"),
    ],
)
def test_another_word_for_a_goal_is_answered_with_ours(tmp_path, line, meant):
    assert refused(tmp_path, "backbone: b", f"{HEAD}{line}\n").help == f"did you mean '{meant}'?"


def test_another_word_for_a_layout_is_answered_with_ours(tmp_path):
    assert refused(tmp_path, "backbone: b", "data: {layout: csv, root: d}\n").help == "did you mean 'table'?"


@pytest.mark.parametrize(("name", "better"), [("my study", "my-study"), ("../bad", "bad"), ("B 2.1", "b-2.1")])
def test_a_name_that_cannot_be_is_answered_with_one_that_can(tmp_path, name, better):
    error = refused(tmp_path, "backbone: b", f"{HEAD}study: '{name}'\n")
    assert error.help.startswith(f"try '{better}'")


def test_data_and_a_backbone_are_enough(tmp_path):
    path = tmp_path / "My Flowers.yaml"
    path.write_text("data: {layout: folder, root: d}\ntrain: {backbone: resnet18}\n")
    spec = read(path)
    assert (spec.study, spec.metric, spec.budget.trials) == ("my-flowers", "overall_accuracy", 1)
    assert Space(spec, ["class"]).recipe({}).train.backbone == "resnet18"


def test_the_copy_in_a_studys_folder_names_that_study(tmp_path):
    path = tmp_path / "flowers" / "space.yaml"
    path.parent.mkdir()
    path.write_text("data: {root: d}\n")
    assert read(path).study == "space"
    (path.parent / "study.json").write_text("{}")
    assert read(path).study == "flowers"


def test_a_file_whose_name_makes_none_wants_a_name(tmp_path):
    path = tmp_path / "ü.yaml"
    path.write_text("data: {layout: folder, root: d}\ntrain: {backbone: resnet18}\n")
    with pytest.raises(UserError, match="study is missing"):
        read(path)
    assert read(path, sets=["study=u"]).study == "u"


@pytest.mark.parametrize(("text", "key"), [("train: {}", "data"), ("data: {layout: folder}", "root")])
def test_what_is_needed_and_missing_is_answered_with_the_line(tmp_path, text, key):
    path = tmp_path / "s.yaml"
    path.write_text(f"{text}\n")
    with pytest.raises(UserError, match=f"{key} is missing") as caught:
        read(path)
    assert caught.value.help == hints.MISSING[key]
