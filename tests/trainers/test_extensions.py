"""Extension files: what they define, which keys signatures make, and what is said of one that cannot be used."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from trainers import extensions, signatures
from trainers.extensions import Definition, ExtensionFile
from trainers.signatures import KINDS, Kind
from trainers.support.errors import EnvironmentFault, UserError


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    extensions.use([])


def use(folder: Path, text: str, name: str = "own.py") -> Path:
    path = folder / name
    path.write_text(text)
    extensions.use([ExtensionFile.read(path)])
    return path


def defined(folder: Path, signature: str, kind: Kind = "samplers", head: str = "") -> Definition:
    """A function of this signature, such as `seed: int, sigma: float = 0.3`."""
    use(folder, f"{head}\n\n\ndef mine({signature}):\n    return 1\n\n\n{kind} = {{'mine': mine}}\n")
    return extensions.needed(kind, "mine")


def refused(folder: Path, text: str) -> UserError:
    with pytest.raises(UserError) as raised:
        use(folder, text)
    assert (raised.value.exit_code, bool(raised.value.help)) == (2, True)
    return raised.value


# ---------------------------------------------------------------------------------------------- signatures -> keys
KEYS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "seed": ([], {}),
    "seed: int": ([], {}),
    "any_name_will_do": ([], {}),
    "seed, sigma: float": (["sigma"], {}),
    "seed, sigma: float = 0.3, count: int = 2": (["sigma", "count"], {"sigma": 0.3, "count": 2}),
    "seed, *, on: bool = True": (["on"], {"on": True}),
    "seed, *rest, on: bool = True": (["on"], {"on": True}),
    "seed, sizes: tuple[int, ...] = (1, 2)": (["sizes"], {"sizes": (1, 2)}),
    "seed, kind: 'Literal[\"a\", \"b\"]' = 'a'": (["kind"], {"kind": "a"}),
    "seed, most: int | None = None": (["most"], {"most": None}),
    "seed, share: Share = 0.5": (["share"], {"share": 0.5}),
    "seed, share: float = Field(0.5, ge=0, le=1)": (["share"], {"share": 0.5}),
    "seed, **others": ([], {}),
}
HEAD = """\
from typing import Annotated, Literal

from pydantic import Field

Share = Annotated[float, Field(ge=0, le=1)]"""


@pytest.mark.parametrize("signature", KEYS)
def test_parameters_after_the_first_are_keys(tmp_path: Path, signature: str):
    found = defined(tmp_path, signature, head=HEAD)
    assert (found.own, found.defaults) == KEYS[signature]
    needed = {key: 0.25 for key in found.own if key not in found.defaults}
    assert found.given({"name": "mine", **needed}) == {**found.defaults, **needed}


@pytest.mark.parametrize("kind", KINDS)
def test_what_sweep_fills_in_is_no_key_in_any_kind(tmp_path: Path, kind: Kind):
    leading = ", ".join(signatures.LEADING[kind])
    found = defined(tmp_path, f"{leading}{', ' * bool(leading)}strength: float = 0.5", kind)
    assert (found.own, found.defaults) == (["strength"], {"strength": 0.5})
    assert found.where == f"{tmp_path / 'own.py'}:4"


@pytest.mark.parametrize("annotation", ["Share", "Annotated[float, Field(ge=0, le=1)]"])
def test_bounds_of_an_annotation_hold(tmp_path: Path, annotation: str):
    found = defined(tmp_path, f"seed, share: {annotation} = 0.5", head=HEAD)
    assert found.given({"share": 1})["share"] == 1.0
    for wrong in (-0.1, 1.1, "much"):
        with pytest.raises(ValidationError):
            found.given({"share": wrong})


def test_a_description_of_ones_own_is_the_keys(tmp_path: Path):
    found = defined(tmp_path, "seed, one: Annotated[int, Field(description='how many')] = 1, two: int = 2", head=HEAD)
    fields = found.keys.model_fields
    assert fields["one"].description == "how many"
    assert fields["two"].description == f"int, of mine in {found.where}"


CLASS = """\
class Poly:
    def __init__(self, epsilon: float = 1.0):
        self.epsilon = epsilon

    def __call__(self, logits, labels):
        return self.epsilon


losses = {"poly": Poly}
"""


def test_a_class_that_is_applied_is_made_with_its_keys(tmp_path: Path):
    path = use(tmp_path, CLASS)
    found = extensions.needed("losses", "poly")
    assert (found.own, found.where) == (["epsilon"], f"{path}:1")
    assert found.bound({"name": "poly", "epsilon": 2.0})(None, None) == 2.0
    assert found.bound({"name": "poly"})(None, None) == 1.0


def test_a_function_that_is_applied_is_called_with_its_keys(tmp_path: Path):
    use(
        tmp_path, "def poly(logits, labels, epsilon: float = 1.0):\n    return epsilon\n\n\nlosses = {'poly': poly}\n"
    )
    assert extensions.needed("losses", "poly").bound({"name": "poly", "epsilon": 3})(None, None) == 3.0


def test_partials_and_wrapped_functions_keep_their_signature(tmp_path: Path):
    text = """\
from functools import partial, wraps


def plain(seed: int, sigma: float = 0.3, count: int = 2):
    return 1


@wraps(plain)
def wrapped(*args, **kwargs):
    return plain(*args, **kwargs)


samplers = {"fixed": partial(plain, count=5), "wrapped": wrapped}
"""
    use(tmp_path, text)
    assert extensions.needed("samplers", "fixed").defaults == {"sigma": 0.3, "count": 5}
    assert extensions.needed("samplers", "wrapped").defaults == {"sigma": 0.3, "count": 2}


SIGNATURES = {
    "seed, sigma": ("the parameter sigma of mine has no annotation", "sigma: float"),
    "seed, sigma=3": ("the parameter sigma of mine has no annotation", "sigma: int = 3"),
    "seed, name: str": ("the parameter name of mine cannot be a key", "another name"),
    "": ("mine has too few parameters", "def mine(seed, ...)"),
    "seed, sigma: Nowhere": ("the signature of mine cannot be read: name 'Nowhere' is not defined", "parameters out"),
    "seed, path: object()": ("the parameters of mine cannot be keys", "annotate with"),
    "seed, _hidden: int = 1": ("the parameter _hidden of mine cannot be a key", "another name"),
}


@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_signature_that_makes_no_keys_is_refused_at_its_line(tmp_path: Path, signature: str):
    what, help = SIGNATURES[signature]
    quoted = "from __future__ import annotations\n" if "Nowhere" in signature else ""
    error = refused(tmp_path, f"{quoted}def mine({signature}):\n    return 1\n\n\nsamplers = {{'mine': mine}}\n")
    assert error.what.startswith(what)
    assert help in error.help
    assert error.where == f"{tmp_path / 'own.py'}:{2 if quoted else 1}"


# ------------------------------------------------------------------------------------------------- dictionaries
ENTRIES = {
    "samplers = [1]": (1, "samplers is not a dictionary"),
    "import optuna\nsamplers = {'a': 3}": (2, "samplers['a'] is int, which cannot be called"),
    "samplers = {\n    'good': lambda seed: 1,\n    'two words': lambda seed: 1,\n}": (
        3,
        "'two words' cannot be a name",
    ),
    "samplers = {\n    7: lambda seed: 1,\n}": (2, "'7' cannot be a name"),
    "x = 1": (None, "the file defines nothing that a search space can name"),
    "losses = {}": (None, "the file defines nothing that a search space can name"),
}


@pytest.mark.parametrize("text", ENTRIES)
def test_a_dictionary_that_cannot_be_used_has_its_line(tmp_path: Path, text: str):
    error, (line, what) = refused(tmp_path, text), ENTRIES[text]
    assert error.what.startswith(what)
    assert error.where == str(tmp_path / "own.py") + (f":{line}" if line else "")


def test_a_module_of_the_name_of_a_dictionary_is_none(tmp_path: Path):
    """As after `from torchvision import models`."""
    use(tmp_path, "import types\nmodels = types\nsamplers = {'mine': lambda seed: 1}\n")
    assert (extensions.names("models"), extensions.names("samplers")) == ([], ["mine"])


def test_a_name_that_is_taken_says_by_whom(tmp_path: Path):
    first, second = tmp_path / "a.py", tmp_path / "b.py"
    first.write_text("def mine(seed):\n    return 1\n\n\nsamplers = {'mine': mine}\n")
    second.write_text("x = 1\n\n\ndef mine(seed):\n    return 2\n\n\nsamplers = {'mine': mine}\n")
    files = [ExtensionFile.read(path) for path in (first, second)]
    with pytest.raises(UserError) as raised:
        extensions.use(files)
    assert (raised.value.where, raised.value.what) == (
        f"{second}:4",
        f"the name mine of samplers is taken, by {first}:1",
    )
    with pytest.raises(UserError, match="is taken, by sweep itself"):
        extensions.use(files[:1], {"samplers": ["mine"]})
    extensions.use(files[1:], {"pruners": ["mine"]})  # another kind
    assert extensions.needed("samplers", "mine").value(0) == 2


# ------------------------------------------------------------------------------------------------------- loading
LOADING = {
    "x = 1\ndef broken(:\n    pass\n": (2, "the file cannot be loaded: invalid syntax", "fix this line"),
    "x = 1\n  y = 2\n": (2, "the file cannot be loaded: unexpected indent", "fix this line"),
    "x = 1\n\nimport nowhere_at_all.inner\n": (
        3,
        "the file cannot be loaded: it needs nowhere_at_all, which is not installed",
        "pip install nowhere_at_all",
    ),
    "x = 1\nimport neighbour\n": (
        2,
        "the file cannot be loaded: it needs neighbour, which is not installed",
        "a file of your own cannot be imported",
    ),
    "def deep():\n    return {}['a']\n\n\ndeep()\n": (2, "the file cannot be loaded: KeyError: 'a'", "fix this line"),
    "import json\njson.loads('{')\n": (2, "the file cannot be loaded: JSONDecodeError", "fix this line"),
    "raise RuntimeError\n": (1, "the file cannot be loaded: RuntimeError", "fix this line"),
    "x = 'a\0b'\n": (None, "the file cannot be loaded", ""),
}


@pytest.mark.parametrize("text", LOADING)
def test_a_file_that_cannot_be_loaded_has_the_users_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str):
    (tmp_path / "neighbour.py").write_text("x = 1\n")
    monkeypatch.chdir(tmp_path)
    error, (line, what, help) = refused(tmp_path, text), LOADING[text]
    assert error.what.startswith(what)
    assert help in error.help
    if line:
        assert error.where == f"{tmp_path / 'own.py'}:{line}"


def test_nothing_is_imported_from_the_current_folder_or_the_files_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for folder in (tmp_path, tmp_path / "inner"):
        folder.mkdir(exist_ok=True)
        (folder / "random.py").write_text("raise RuntimeError('not this one')\n")
        (folder / "statistics.py").write_text("raise RuntimeError('not this one')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "statistics", raising=False)
    before = list(sys.path)
    use(
        tmp_path / "inner",
        "import random\nimport statistics\nsamplers = {'mine': lambda seed: statistics.mean([1, 3])}\n",
    )
    assert extensions.needed("samplers", "mine").value(0) == 2
    assert sys.path == before


def test_a_text_is_executed_once_and_a_changed_one_again(tmp_path: Path):
    trace = tmp_path / "trace"
    head = f"from pathlib import Path\nwith Path({str(trace)!r}).open('a') as file:\n    file.write('x')\n"
    text = f"{head}samplers = {{'mine': lambda seed: 1}}\n"
    for _ in range(3):
        use(tmp_path, text)
    assert trace.read_text() == "x"
    use(tmp_path, text.replace(": 1}", ": 2}"))
    assert (trace.read_text(), extensions.needed("samplers", "mine").value(0)) == ("xx", 2)
    use(tmp_path, text)  # back again
    assert (trace.read_text(), extensions.needed("samplers", "mine").value(0)) == ("xx", 1)


def test_what_is_in_use_is_what_was_named_last(tmp_path: Path):
    use(tmp_path, "samplers = {'one': lambda seed: 1}\n")
    use(tmp_path, "samplers = {'two': lambda seed: 1}\n", "other.py")
    assert (extensions.find("samplers", "one"), extensions.names("samplers")) == (None, ["two"])
    with pytest.raises(UserError, match="no extension file defines 'one' in samplers"):
        extensions.needed("samplers", "one")


def test_dataclasses_and_postponed_annotations_work_in_a_file(tmp_path: Path):
    text = """\
from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Mine:
    seed: int
    sigma: float = 0.3


samplers = {"mine": Mine}
"""
    use(tmp_path, text)
    found = extensions.needed("samplers", "mine")
    assert found.defaults == {"sigma": 0.3}
    assert found.called(found.value, 7, sigma=0.5) == found.value(7, 0.5)


def test_what_a_function_raises_names_its_innermost_line_in_the_file(tmp_path: Path):
    text = """\
import json


def inner(text):
    return json.loads(text)


def mine(seed):
    return inner("{")


samplers = {"mine": mine}
"""
    path = use(tmp_path, text)
    found = extensions.needed("samplers", "mine")
    with pytest.raises(UserError) as raised:
        found.called(found.value, 0)
    assert raised.value.where == f"{path}:5"
    assert raised.value.what.startswith("mine of samplers failed: JSONDecodeError: Expecting property name")


def test_a_copy_that_was_changed_is_not_loaded(tmp_path: Path):
    path = use(tmp_path, "samplers = {'mine': lambda seed: 1}\n")
    wanted = {"own.py": ExtensionFile.read(path).checksum}
    assert [one.text for one in extensions.stored(tmp_path, wanted)] == [path.read_bytes()]
    path.write_text("samplers = {'mine': lambda seed: 2}\n")
    with pytest.raises(EnvironmentFault, match="is not the one that the study started with"):
        extensions.stored(tmp_path, wanted)
    path.unlink()
    with pytest.raises(UserError, match="this copy of an extension file is missing"):
        extensions.stored(tmp_path, wanted)


DEFAULTS = {
    "seed, share: float = None": None,
    "seed, share: Annotated[float, Field(ge=0, le=1)] = 5.0": "5.0, does not fit: Input should be less",
    "seed, share: float = float('inf')": "inf, does not fit: Out of range float values are not JSON compliant",
    "seed, share: int = 'abc'": "'abc', does not fit: Input should be a valid integer",
    "seed, choice: float = 1.0": "cannot be a key",
    "seed, copy: int = 1": "cannot be a key",
}


@pytest.mark.parametrize(("signature", "said"), DEFAULTS.items())
def test_a_default_must_fit_its_annotation(tmp_path, signature, said):
    head = "from typing import Annotated\n\nfrom pydantic import Field\n"
    if said is None:
        assert defined(tmp_path, signature, head=head).given({"name": "mine"}) == {"share": None}
        return
    with pytest.raises(UserError) as raised:
        defined(tmp_path, signature, head=head)
    assert said in raised.value.what
    assert raised.value.where.startswith(f"{tmp_path / 'own.py'}:")


def test_a_dataclass_may_make_a_default(tmp_path):
    text = """from dataclasses import dataclass, field

@dataclass
class Mine:
    weights: list[float] = field(default_factory=lambda: [1.0, 2.0])

    def __call__(self, logits, labels):
        return self.weights

losses = {"mine": Mine}
"""
    use(tmp_path, text)
    assert extensions.needed("losses", "mine").bound({"name": "mine"})(0, 0) == [1.0, 2.0]


@pytest.mark.parametrize("line", ["sys.exit(0)", "raise SystemExit('bye')", "raise GeneratorExit"])
def test_a_file_that_ends_the_program_is_a_mistake_in_it(tmp_path, line):
    assert refused(tmp_path, f"import sys\n{line}\n").where == f"{tmp_path / 'own.py'}:2"


def test_a_file_leaves_the_current_folder_and_the_output_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    use(tmp_path, "import os\nos.chdir('/')\nprint('hello')\nmetrics = {'one': lambda probabilities, labels: 1.0}\n")
    assert Path.cwd() == tmp_path
    assert capsys.readouterr() == ("", "hello\n")
