"""Names and keys of layouts, samplers and pruners of extension files: judged like sweep's own, with both places."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeper.space import yaml_io
from sweeper.space.spec import CustomPruner, CustomSampler, StudySpec
from trainers import extensions
from trainers.support.errors import UserError

OWN = """\
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field


def folds(root: Path, fold: int, folds: int = 5, kind: Literal["a", "b"] = "a"):
    return []


def cma(seed: int, population: Annotated[int, Field(ge=2)] = 4, sigma: float | None = None):
    return None


def window(seed: int, lower: float, *, upper: float = 1.0):
    return None


layouts = {"folds": folds}
samplers = {"cma": cma}
pruners = {"window": window}
"""
SPACE = """\
extensions: [own.py]
data: {data}
budget: {{trials: 3}}
search: {search}
train: {{backbone: resnet18, optimizer: {{name: adamw, lr: {{uniform: [0.1, 0.2]}}}}}}
"""
DATA, SEARCH = "{layout: folder, root: x}", "{sampler: tpe, pruner: none}"


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    extensions.use([])


def read(folder: Path, *, data: str = DATA, search: str = SEARCH, own: str = OWN, **others: str) -> StudySpec:
    for name, text in {"own": own, **others}.items():
        (folder / f"{name}.py").write_text(text)
    listed = ", ".join(f"{name}.py" for name in ("own", *others))
    path = folder / "space.yaml"
    path.write_text(SPACE.format(data=data, search=search).replace("[own.py]", f"[{listed}]"))
    return yaml_io.read(path)


def refused(folder: Path, **given: str) -> UserError:
    with pytest.raises(UserError) as raised:
        read(folder, **given)
    assert raised.value.exit_code == 2
    assert raised.value.help or "must be 'a' or 'b'" in raised.value.what
    assert [path.suffix for path in folder.iterdir() if path.suffix not in (".py", ".yaml")] == []
    return raised.value


# --------------------------------------------------------------------------------------------------------- accepted
def test_keys_of_its_own_are_typed_and_those_left_out_have_their_defaults(tmp_path: Path):
    spec = read(
        tmp_path,
        data="{layout: folds, root: x, layout_args: {fold: 3, kind: b}}",
        search="{sampler: {name: cma, population: 8}, pruner: {name: window, lower: 0.2}}",
    )
    assert (spec.data.layout, spec.data.layout_args) == ("folds", {"fold": 3, "kind": "b"})
    assert spec.search.sampler == CustomSampler(name="cma", population=8, sigma=None)  # type: ignore[call-arg]
    assert spec.search.pruner == CustomPruner(name="window", lower=0.2, upper=1.0)  # type: ignore[call-arg]


def test_a_name_alone_is_short_for_it(tmp_path: Path):
    spec = read(tmp_path, search="{sampler: cma, pruner: none}")
    assert spec.search.sampler == CustomSampler(name="cma", population=4, sigma=None)  # type: ignore[call-arg]


def test_what_is_set_on_the_command_line_is_judged_too(tmp_path: Path):
    read(tmp_path)
    spec = yaml_io.read(tmp_path / "space.yaml", sets=["search.sampler={name: cma, population: 6}"])
    assert spec.search.sampler.model_dump()["population"] == 6
    with pytest.raises(UserError, match="unknown sampler 'cna'") as raised:
        yaml_io.read(tmp_path / "space.yaml", sets=["search.sampler=cna"])
    assert raised.value.where == "--set search.sampler=cna"


# ---------------------------------------------------------------------------------------------------------- refused
WRONG = {
    ("data", "{layout: fold, root: x}"): ("2:16", "unknown layout 'fold'", "did you mean"),
    ("data", "{layout: foldz, root: x}"): ("2:16", "unknown layout 'foldz'", "did you mean 'folds'?"),
    ("data", "{layout: zzzzzz, root: x}"): ("2:16", "unknown layout 'zzzzzz'", "deepfashion, table, folder or folds"),
    ("data", "{layout: folds, root: x}"): ("2:8", "fold is missing in data.layout_args", ""),
    ("data", "{layout: folds, root: x, layout_args: {folds: 3}}"): (
        "2:32",
        "fold is missing in data.layout_args",
        "",
    ),
    ("data", "{layout: folds, root: x, layout_args: {fold: 1, flod: 3}}"): (
        "2:55",
        "unknown key 'flod' in data.layout_args",
        "did you mean 'fold'?",
    ),
    ("data", "{layout: folds, root: x, layout_args: {fold: one}}"): (
        "2:52",
        "data.layout_args.fold must be a whole number, found 'one'",
        "",
    ),
    ("data", "{layout: folds, root: x, layout_args: {fold: 1, kind: c}}"): (
        "2:61",
        "data.layout_args.kind must be 'a' or 'b', found 'c'",
        "",
    ),
    ("data", "{layout: folder, root: x, layout_args: {fold: 1}}"): (
        "2:7",
        "data: layout_args is for a layout from an extension file, but the layout is folder",
        "",
    ),
    ("search", "{sampler: cna}"): ("4:19", "unknown sampler 'cna'", "did you mean 'cma'?"),
    ("search", "{sampler: {name: cma, popluation: 4}}"): (
        "4:31",
        "unknown key 'popluation' in search.sampler",
        "did you mean 'population'?",
    ),
    ("search", "{sampler: {name: cma, population: 1}}"): (
        "4:43",
        "search.sampler.population must be at least 2, found 1",
        "",
    ),
    ("search", "{sampler: {name: cma, sigma: wide}}"): (
        "4:38",
        "search.sampler.sigma must be a number, found 'wide'",
        "",
    ),
    ("search", "{sampler: window}"): ("4:19", "unknown sampler 'window'", "it can be tpe"),
    ("search", "{pruner: windw}"): ("4:18", "unknown pruner 'windw'", "did you mean 'window'?"),
    ("search", "{pruner: window}"): ("4:10", "lower is missing in search.pruner", ""),
    ("search", "{pruner: {name: window, lower: low}}"): (
        "4:40",
        "search.pruner.lower must be a number, found 'low'",
        "",
    ),
    ("search", "{pruner: {lower: 0.2}}"): ("4:18", "name is missing in search.pruner", "it can be median, asha"),
}


@pytest.mark.parametrize(("part", "text"), WRONG)
def test_a_wrong_name_or_key_has_its_place_and_a_remedy(tmp_path: Path, part: str, text: str):
    error, (place, what, help) = refused(tmp_path, **{part: text}), WRONG[part, text]
    assert (error.where, error.what) == (f"{tmp_path / 'space.yaml'}:{place}", what)
    assert help in error.help


FILES = {
    "samplers = {'tpe': cma}": "the name tpe of samplers is taken, by sweep itself",
    "pruners = {'asha': cma}": "the name asha of pruners is taken, by sweep itself",
    "layouts = {'table': lambda root: []}": "the name table of layouts is taken, by sweep itself",
    "def bare(root, k):\n    return []\n\n\nlayouts = {'bare': bare}": "the parameter k of bare has no annotation",
    "def bare(seed: int, sigma=0.3):\n    return 1\n\n\nsamplers = {'bare': bare}": (
        "the parameter sigma of bare has no annotation"
    ),
    "def none():\n    return []\n\n\nlayouts = {'none': none}": "none has too few parameters",
    "def none():\n    return 1\n\n\npruners = {'none_': none}": "none_ has too few parameters",
    "def named(seed: int, name: str):\n    return 1\n\n\nsamplers = {'named': named}": (
        "the parameter name of named cannot be a key"
    ),
    "samplers = {'seven': 7}": "samplers['seven'] is int, which cannot be called",
    "layouts = ['folds']": "layouts is not a dictionary",
}


@pytest.mark.parametrize("text", FILES)
def test_what_a_file_must_not_define_has_its_line(tmp_path: Path, text: str):
    body = f"def cma(seed: int):\n    return None\n\n\n{text}\n"
    error = refused(tmp_path, own=body)
    assert error.what.startswith(FILES[text])
    file, _, line = error.where.rpartition(":")
    assert file == str(tmp_path / "own.py")
    found = body.splitlines()[int(line) - 1]
    assert found.startswith(("def cma", "def ", "samplers", "layouts", "pruners"))


def test_a_name_of_two_files_is_taken(tmp_path: Path):
    error = refused(tmp_path, other=OWN.replace("folds", "others").replace("window", "gap"))
    assert error.what == f"the name cma of samplers is taken, by {tmp_path / 'own.py'}:11"
    assert error.where == f"{tmp_path / 'other.py'}:11"


def test_one_file_twice_and_one_that_is_not_there(tmp_path: Path):
    read(tmp_path)
    path = tmp_path / "space.yaml"
    for listed, what in (
        ("[own.py, ./own.py]", "two extension files are called own.py"),
        ("[on.py]", "there is no extension file 'on.py'"),
    ):
        path.write_text(SPACE.format(data=DATA, search=SEARCH).replace("[own.py]", listed))
        with pytest.raises(UserError, match=what) as raised:
            yaml_io.read(path)
        assert raised.value.where.startswith(f"{path}:1:")


def test_without_the_file_its_names_are_unknown(tmp_path: Path):
    read(tmp_path)
    path = tmp_path / "space.yaml"
    path.write_text(SPACE.format(data=DATA, search="{sampler: cma}").replace("extensions: [own.py]\n", ""))
    with pytest.raises(UserError, match="unknown sampler 'cma'"):
        yaml_io.read(path)
