"""Search spaces are read strictly, and every mistake is told with its place and a remedy."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.space.space import Space
from sweeper.space.spec import Grid
from sweeper.space.tree import plain
from sweeper.space.yaml_io import LARGEST, StudySpec, read, recipe_yaml
from tests.support import golden
from trainers.config import Recipe, TrainConfig
from trainers.data_config import DataConfig
from trainers.support.errors import UserError
from trainers.support.text import TURNING

BAD = Path(__file__).parent / "bad_yaml"
HEAD = "study: s\ndata: {root: d}\nbudget: {trials: 3}\n"
Write = Callable[..., StudySpec]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Reads a search space from its text, as the file s.yaml in the current folder."""
    monkeypatch.chdir(tmp_path)

    def written(text: str, *sets: str) -> StudySpec:
        Path("s.yaml").write_text(text)
        return read(Path("s.yaml"), sets=sets)

    return written


# ------------------------------------------------------------------------------------- bad files
@pytest.mark.fault("Y1")
@pytest.mark.parametrize("path", sorted(BAD.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_bad_file_is_refused_in_these_words(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(BAD)
    with pytest.raises(UserError) as caught:
        Space(read(Path(path.name)), ["material", "fabric"])
    golden.same(path.with_suffix(".txt"), f"{caught.value}\n")
    assert caught.value.exit_code == 2


def test_there_are_at_least_forty_bad_files():
    assert len(list(BAD.glob("*.yaml"))) >= 40


@pytest.mark.parametrize("path", sorted(BAD.glob("*.txt")), ids=lambda path: path.stem)
def test_every_refusal_names_line_and_column_and_a_remedy(path: Path):
    lines = path.read_text().splitlines()
    assert any(line.startswith(f"  --> {path.stem}.yaml:") and line.count(":") == 3 - 1 for line in lines)
    assert any(line.startswith("help: ") for line in lines)


def test_a_missing_file_suggests_its_neighbour(write: Write):
    write(HEAD + "train: {backbone: b}\n")
    with pytest.raises(UserError, match=r"did you mean 's\.yaml'"):
        read(Path("ss.yaml"))


def test_a_folder_is_not_a_search_space(tmp_path: Path):
    with pytest.raises(UserError, match="a folder, not a search space") as caught:
        read(tmp_path)
    assert f"sweep run {tmp_path} also runs it" in caught.value.help


@pytest.mark.fault("Y1")
@pytest.mark.parametrize("path", ["/dev/zero", "/dev/urandom", "/dev/null", "pipe"])
def test_neither_a_pipe_nor_a_device_is_read(tmp_path: Path, path: str):
    """Nobody writes into the pipe: to open it would be to wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="a pipe or a device"):
        read(tmp_path / path)


def test_a_file_of_more_than_a_mebibyte_is_refused(write: Write):
    with pytest.raises(UserError, match="too large"):
        write("#" * (LARGEST + 1))


def test_a_hundred_thousand_brackets_are_refused_at_once(write: Write):
    with pytest.raises(UserError, match="levels deep"):
        write("a: " + "[" * 100_000)


@pytest.mark.fault("Y1")
def test_a_hundred_thousand_values_are_refused_before_they_are_compared(write: Write):
    with pytest.raises(UserError, match="more than 20000 values"):
        write("a: [" + ", ".join(map(str, range(100_000))) + "]")


# ----------------------------------------------------------------------------------- good files
def test_a_byte_order_mark_and_dos_line_ends_are_read(write: Write):
    spec = write("\ufeff" + (HEAD + "train: {backbone: b}\n").replace("\n", "\r\n"))
    assert plain(spec.train) == {"backbone": "b"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("no", "no"),
        ("017", 17),
        ("0o17", 15),
        ("2024-01-01", "2024-01-01"),
        ("'1'", "1"),
        ("~", None),
    ],
)
def test_scalars_are_those_of_yaml_1_2(write: Write, text: str, value: object):
    spec = write(HEAD + f"train: {{backbone: b, backbone_args: {{x: {text}}}}}\n")
    assert plain(spec.train)["backbone_args"]["x"] == value


def test_a_recipe_with_nothing_open_is_one_trial(write: Write):
    assert write("study: s\ndata: {root: d}\ntrain: {backbone: b}\n").budget.trials == 1


def test_a_grid_needs_no_budget(write: Write):
    spec = write(
        "study: s\ndata: {root: d}\nsearch: {sampler: grid}\ntrain: {backbone: b, batch_size: {choice: [1, 2]}}"
    )
    assert spec.search.sampler == Grid()
    assert spec.budget.trials is None


def test_sampler_and_pruner_are_names_or_mappings(write: Write):
    search = "search: {sampler: {name: tpe, startup_trials: 3}, pruner: none}\n"
    spec = write(HEAD + search + "train: {backbone: b}\n")
    assert spec.search.model_dump() == {
        "sampler": {"name": "tpe", "startup_trials": 3},
        "pruner": {"name": "none"},
        "prior": {},
        "seed": 0,
        "folds": None,
        "confirm": None,
    }


def test_the_text_as_read_is_kept(write: Write):
    text = HEAD + "train: {backbone: b}  # a note\n"
    assert write(text, "train.epochs=3").text == text


@pytest.mark.process
def test_reading_loads_neither_torch_nor_optuna():
    code = "import sys, sweeper.space.yaml_io, sweeper.space.space; "
    code += "sys.exit(bool({'torch', 'optuna', 'timm'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)


# --------------------------------------------------------------------------------------- --set
TRAIN = """train:
  backbone: b
  loss: {name: focal, gamma: {uniform: [0, 5]}, category_weights: {per_category: {uniform: [0.5, 1.5]}}}
  optimizer: {name: adamw, betas: [0.9, 0.99]}
  schedule: {choice: [{name: cosine}, {name: step, every: {int: [1, 3]}}]}
  head: linear
"""


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("train.loss.gamma=2", ("loss", "gamma"), 2),
        ("train.loss.gamma={uniform: [0, 1]}", ("loss", "gamma"), {"uniform": [0.0, 1.0]}),
        ("train.epochs=7", ("epochs",), 7),
        ("train.augment.horizontal_flip=1e-1", ("augment", "horizontal_flip"), 0.1),
        ("train.head.dropout=0.5", ("head",), {"name": "linear", "dropout": 0.5}),
        ("train.optimizer.betas.1=0.999", ("optimizer", "betas"), [0.9, 0.999]),
        ("train.schedule=step", ("schedule",), "step"),
        ("train.loss.category_weights=", ("loss", "category_weights"), None),
    ],
)
def test_set_replaces_or_adds_one_value(write: Write, assignment: str, path: tuple[str, ...], value: object):
    found = plain(write(HEAD + TRAIN, assignment).train)
    for key in path:
        found = found[key]
    assert found == value


def test_set_reaches_every_part_of_the_file_and_the_last_one_wins(write: Write):
    spec = write(HEAD + TRAIN, "budget.trials=4", "data.root=x", "metric=macro_f1", "study=t", "budget.trials=5")
    assert (spec.budget.trials, spec.data.root, spec.metric, spec.study) == (5, "x", "macro_f1", "t")


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.los.gamma=2", "key 'los' in train\n  --> --set train.los.gamma=2\nhelp: did you mean 'loss'?"),
        ("train.loss.gama=2", "'gama' in train.loss\n  --> --set train.loss.gama=2\nhelp: did you mean 'gamma'?"),
        ("trian.epochs=2", "unknown key 'trian'\n  --> --set trian.epochs=2\nhelp: did you mean 'train'?"),
        ("train.epochs=two", "train.epochs must be a whole number, found 'two'\n  --> --set train.epochs=two"),
        ("train.epochs.x=2", "--> --set train.epochs.x=2"),
        ("train.backbone.x=2", "train.backbone is a single value and has no keys"),
        ("train.optimizer.betas.2=0.9", "train.optimizer.betas is a list of 2 and has no '2'"),
        ("train.schedule.every=2", "train.schedule is left open, so --set cannot reach into it"),
        ("train.loss.category_weights.material=2", "train.loss.category_weights is left open"),
        ("train.epochs", "--set needs path=value"),
        ("train..epochs=1", "--set needs path=value"),
        ("train.epochs=[1", "--> --set train.epochs=[1"),
        ("train.epochs=&a 1", "aliases are not allowed: &a"),
        ("data.crop={choice: [none, box]}", "data.crop cannot be left open"),
        ("train.loss.gamma={uniform: [3, 1]}", "bound 3.0\n  --> --set train.loss.gamma={uniform: [3, 1]}"),
    ],
)  # fmt: skip
def test_a_wrong_set_is_told_with_the_assignment_as_its_place(write: Write, assignment: str, message: str):
    with pytest.raises(UserError) as caught:
        Space(write(HEAD + TRAIN, assignment), ["material"])
    assert message in str(caught.value)


def test_a_key_inside_a_value_that_is_not_a_mapping_is_refused(write: Write):
    with pytest.raises(UserError, match=r"train\.epochs is a single value"):
        write(HEAD + "train: {backbone: b, epochs: 3}", "train.epochs.x=2")


# --------------------------------------------------------------------------------- recipe_yaml
STEERING = ["Cc", "Cs", "Zl", "Zp"]  # which a search space may not hold
TEXT = st.text(st.characters(exclude_categories=STEERING, exclude_characters=TURNING), max_size=12)
PARTS = st.fixed_dictionaries(
    {
        "backbone": TEXT,
        "backbone_args": st.dictionaries(TEXT, TEXT | st.integers(-(10**6), 10**6) | st.booleans(), max_size=3),
        "loss": st.fixed_dictionaries(
            {"name": st.just("focal"), "gamma": st.floats(0, 1e300)},
            optional={"category_weights": st.dictionaries(TEXT, st.floats(0, 9), max_size=3)},
        ),
        "optimizer": st.fixed_dictionaries({"name": st.just("adamw"), "lr": st.floats(1e-300, 1e18)}),
        "schedule": st.sampled_from([{"name": "step", "every": 3}, {"name": "one_cycle"}, {"name": "plateau"}]),
        "normalize": st.sampled_from(["model", "imagenet", {"mean": (0.5, 0.4, 0.3), "std": 0.5}]),
        "clip_norm": st.none() | st.floats(1e-5, 10),
        "seed": st.integers(0, 2**60),
    }
)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(parts=PARTS, root=TEXT, comment=TEXT)
def test_a_recipe_written_as_yaml_reads_back_as_itself(
    tmp_path_factory: pytest.TempPathFactory, parts: dict[str, object], root: str, comment: str
):
    recipe = Recipe(data=DataConfig(root=root), metric="macro_f1", train=TrainConfig.model_validate(parts))
    path = tmp_path_factory.getbasetemp() / "recipe.yaml"
    path.write_text(recipe_yaml("study-1", recipe, comment=comment), newline="")
    spec = read(path)
    assert Space(spec, []).recipe({}) == recipe
    assert spec.study == "study-1"


def test_what_was_derived_is_left_out():
    recipe = Recipe(data=DataConfig(root="d", size=64), train=TrainConfig(backbone="b"), derived=("data.size",))
    written = recipe.model_copy(update={"derived": ()})
    assert "size" not in recipe_yaml("s", recipe).splitlines()[1]
    assert "size: 64" in recipe_yaml("s", written).splitlines()[1]


def test_a_recipe_begins_with_its_comment():
    recipe = Recipe(data=DataConfig(root="d"), train=TrainConfig(backbone="b"))
    assert recipe_yaml("s", recipe, comment="Answer: yes\n\nreally").startswith(
        "# Answer: yes\n#\n# really\nstudy: s\n"
    )
