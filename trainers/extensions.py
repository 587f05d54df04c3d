"""A user's own Python: what the files beside a search space define, by kind and name.

Such a file is ordinary Python with plain dictionaries, such as `losses = {"poly": poly}`. It is loaded by its path,
once for each path and text, and nothing else is: neither the folder it lies in nor the current one is put on
Python's path.
"""

import ast
import hashlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from importlib.abc import InspectLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, SupportsFloat, TextIO

from trainers.epoch import Part
from trainers.metrics import definitions
from trainers.metrics.definitions import BOTH, ONE, MetricDefinition
from trainers.signatures import KINDS, Kind, base, keys_of
from trainers.support.errors import EnvironmentFault, UserError
from trainers.support.text import brief

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True)
class ExtensionFile:
    """An extension file as it was read once: what is loaded, copied and compared is this text."""

    path: Path
    text: bytes = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> "ExtensionFile":
        """Raises UserError where it cannot be read."""
        try:
            return cls(path, path.read_bytes())
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            what = "there is no such extension file" if missing else f"cannot be read: {error.strerror}"
            raise UserError(what, where=str(path), help="extensions: takes paths beside the search space") from None

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def checksum(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text).hexdigest()


@dataclass(frozen=True)
class Definition:
    """One entry of a dictionary in an extension file."""

    kind: Kind
    name: str
    value: Any  # what the file has under that name
    path: Path
    line: int
    keys: type[Part] = field(repr=False)  # the model of its keys: name, those of every such part, its own
    options: Mapping[str, bool] = field(default_factory=dict)  # of a metric

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"

    @property
    def own(self) -> list[str]:
        """The names of its own keys."""
        return [key for key in self.keys.model_fields if key not in (*base(self.kind).model_fields, "name")]

    @property
    def defaults(self) -> dict[str, Any]:
        """Its own keys that may be left out, with what they are then."""
        fields = self.keys.model_fields
        return {key: fields[key].default for key in self.own if not fields[key].is_required()}

    def given(self, part: Mapping[str, Any]) -> dict[str, Any]:
        """The values of its own keys in a part of a recipe, those that were left out at their defaults."""
        found = self.keys.model_validate(part)
        return {key: getattr(found, key) for key in self.own}

    def called(self, function: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """What the function gives; whatever it raises becomes a UserError with the line of the user's file."""
        try:
            return function(*given, **named)
        except (Exception, SystemExit) as error:
            if isinstance(error, UserError) or _no_room(error):
                raise  # it is blamed already; or the batch is made smaller for it
            raise blamed(error, self.path, f"{self.name} of {self.kind} failed", self.line) from error

    def module(self, *given: Any, **named: Any) -> Any:
        """The torch.nn.Module that a model or a head makes; UserError for anything else."""
        found = self.called(self.value, *given, **named)
        if not hasattr(found, "state_dict"):
            what = f"{self.name} of {self.kind} makes {type(found).__name__}, and not a torch.nn.Module"
            raise UserError(what, where=self.where, help="return the module")
        return found

    def bound(self, part: Mapping[str, Any]) -> Callable[..., Any]:
        """What is called with data alone: a metric, a loss, an augmentation."""
        keys, made = self.given(part), self.value
        if inspect.isclass(made):
            made = self.called(made, **keys)
        elif keys:
            made = partial(made, **keys)
        called: Callable[..., Any] = made
        return called


METRIC_OPTIONS = {"minimize": False, "per_category": True, "several_answers": False}
"""What a metric's entry can say beside its `function`, and what holds where it says nothing."""

_definitions: dict[tuple[Kind, str], Definition] = {}
_modules: dict[tuple[str, str], ModuleType] = {}


def use(files: Sequence[ExtensionFile], taken: Mapping[Kind, Collection[str]] | None = None) -> None:
    """Make what these files define, and nothing else, known in this process.

    taken: built-in names by kind. Raises UserError, with the place in the user's file, for one that cannot be loaded
    or defines what cannot be used.
    """
    _definitions.clear()
    definitions.REGISTERED.clear()
    for file in files:
        for one in _defined(_module(file), file):
            _refuse_taken(one, (taken or {}).get(one.kind, ()))
            _definitions[one.kind, one.name] = one
            if one.kind == "metrics":
                definitions.register(_metric(one))


def summary() -> list[str]:
    """A line for each file in use, with what it defines."""
    found: dict[str, dict[str, list[str]]] = {}
    for (kind, name), one in _definitions.items():
        found.setdefault(one.path.name, {}).setdefault(kind, []).append(name)
    return [
        f"{file}: {', '.join(f'{kind} {name}' for kind, names in kinds.items() for name in names)}"
        for file, kinds in found.items()
    ]


def find(kind: Kind, name: str) -> Definition | None:
    """The definition of that name in the files in use."""
    return _definitions.get((kind, name))


def names(kind: Kind) -> list[str]:
    """What the files in use define of a kind."""
    return [name for known, name in _definitions if known == kind]


def needed(kind: Kind, name: str) -> Definition:
    """The same as `find`; UserError where there is none: a stored recipe needs a file that was not loaded."""
    found = find(kind, name)
    if found is None:
        raise UserError(
            f"nothing of {kind} is called '{brief(name)}'",
            where="extensions",
            help=f"name the file that has it in {kind} = {{...}} under extensions: of the search space",
        )
    return found


def load(paths: Sequence[str]) -> None:
    """Use the files at these paths, in a process that was told of them."""
    use([ExtensionFile.read(Path(path)) for path in paths])


def stored(folder: Path, wanted: Mapping[str, str]) -> list[ExtensionFile]:
    """The copies in a study's folder that a recipe was made with, by file name and SHA-256.

    Raises EnvironmentFault for one that is missing, or another text by now.
    """
    found = []
    for path, checksum in ((folder / Path(name).name, checksum) for name, checksum in wanted.items()):
        copy = ExtensionFile.read(path) if path.is_file() else None
        if copy is None or copy.checksum != checksum:
            what = "is not there" if copy is None else "is not the one that the study began with"
            help = "restore it, or begin another study with --new-study NAME"
            raise EnvironmentFault(f"this copy of an extension file {what}", where=str(path), help=help)
        found.append(copy)
    return found


# ---------------------------------------------------------------------------------------------- loading
def _module(file: ExtensionFile) -> ModuleType:
    key = str(file.path), file.checksum
    if key not in _modules:
        number = hashlib.sha256("\0".join(key).encode(errors="surrogateescape")).hexdigest()[:12]
        _modules[key] = _executed(file, f"sweep_extension_{number}")
    return _modules[key]


@contextmanager
def answering() -> Iterator[TextIO]:
    """Standard output for an answer alone: what somebody's code prints meanwhile goes to stderr."""
    answer = sys.stdout
    with redirect_stdout(sys.stderr):
        yield answer


class _Text(InspectLoader):
    """Imports the text that was read once, whatever lies at its path by now."""

    def __init__(self, file: ExtensionFile) -> None:
        self.file = file

    def get_source(self, _fullname: str) -> str:
        return importlib.util.decode_source(self.file.text)

    def get_code(self, _fullname: str) -> CodeType:
        return self.source_to_code(self.file.text, str(self.file.path))


def _executed(file: ExtensionFile, name: str) -> ModuleType:
    """The module that the file's text makes."""
    path = file.path
    spec = importlib.util.spec_from_loader(name, _Text(file), origin=str(path))
    if spec is None or spec.loader is None:
        raise RuntimeError(f"no module can be made of {path}")
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import would ask the network for a newer version
    sys.modules[name] = module  # dataclasses and pickles look their module up
    folder = Path.cwd()
    try:
        with answering():
            spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, too
        del sys.modules[name]
        raise blamed(error, path, "the file cannot be loaded") from error
    finally:
        os.chdir(folder)
    return module


def _no_room(error: BaseException) -> bool:
    """Whether a device had no memory left, as far as torch is loaded."""
    device = sys.modules.get("trainers.support.device")
    return device is not None and bool(device.no_room(error))


def blamed(error: BaseException, path: Path, what: str, line: int = 1) -> UserError:
    """An exception in a user's code as one sentence with the line of theirs that it passed last, or else `line`."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return UserError(f"{what}: {error.msg}", where=f"{path}:{error.lineno}", help="mend the line")
    line = _line_of(error, path) or line
    said = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        remedy = f"pip install {package}; a file of your own cannot be imported, so copy what you need of it"
        return UserError(f"{what}: it needs {package}, which is not installed", where=f"{path}:{line}", help=remedy)
    return UserError(f"{what}: {text}", where=f"{path}:{line}", help="mend the line")


def _line_of(error: BaseException, path: Path) -> int | None:
    """The line of the file that was running when the exception came, the innermost one."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


# -------------------------------------------------------------------------------------------- definitions
def _defined(module: ModuleType, file: ExtensionFile) -> list[Definition]:
    lines, path, found = _lines(file), file.path, list[Definition]()
    for kind in KINDS:
        entries = vars(module).get(kind)
        if entries is None or inspect.ismodule(entries):
            continue
        place = f"{path}:{lines.get(kind, 1)}"
        if not isinstance(entries, dict):
            raise UserError(f"{kind} is no dictionary", where=place, help=f'write {kind} = {{"name": function}}')
        found += [_definition(kind, name, value, file, lines) for name, value in entries.items()]
    if not found:
        words = ", ".join(KINDS)
        raise UserError(
            "the file defines nothing that a search space can name",
            where=str(path),
            help=f'write a dictionary such as losses = {{"poly": poly}}; there are {words}',
        )
    return found


def _definition(kind: Kind, name: Any, value: Any, file: ExtensionFile, lines: Mapping[str, int]) -> Definition:
    path = file.path
    place = f"{path}:{lines.get(f'{kind}.{name}', lines.get(kind, 1))}"
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserError(
            f"{brief(str(name))!r} cannot be a name in {kind}", where=place, help="take letters, digits and _"
        )
    options: dict[str, bool] = {}
    if kind == "metrics" and isinstance(value, dict):
        value, options = _unfolded(name, value, place)
    if not callable(value):
        raise UserError(
            f"{kind}[{name!r}] is {type(value).__name__}, and cannot be called",
            where=place,
            help="name a function, or a class",
        )
    line = _first_line(value, file) or int(place.rpartition(":")[2])
    return Definition(kind, name, value, path, line, keys_of(kind, name, value, f"{path}:{line}"), options)


def _unfolded(name: str, entry: Mapping[Any, Any], place: str) -> tuple[Any, dict[str, bool]]:
    """The function and the options of a metric that is written as a dictionary."""
    options = {key: value for key, value in entry.items() if key != "function"}
    wrong = [key for key, value in options.items() if key not in METRIC_OPTIONS or not isinstance(value, bool)]
    if "function" not in entry or wrong:
        what = f"{brief(str(wrong[0]))!r}: {brief(repr(options[wrong[0]]))}" if wrong else "no function"
        words = ", ".join(METRIC_OPTIONS)
        remedy = f'write {{"function": {name}, ...}} with any of {words}, each True or False'
        raise UserError(f"the metric {name} has {what}", where=place, help=remedy)
    return entry["function"], options


def _metric(one: Definition) -> MetricDefinition:
    """A metric as evaluation asks it. Its parameters after the first two keep their defaults."""
    if needed := [key for key in one.own if key not in one.defaults]:
        what = f"the parameter {needed[0]} of the metric {one.name} has no default"
        raise UserError(what, where=one.where, help="a metric is called with probabilities and labels alone")
    options = METRIC_OPTIONS | dict(one.options)
    function = one.called(lambda: one.bound({}))

    def figure(probabilities: Any, labels: Any) -> float | None:
        found = one.called(function, probabilities, labels)
        if found is None or (isinstance(found, SupportsFloat) and not getattr(found, "shape", ())):
            return None if found is None else float(found)
        got = f"an array {list(found.shape)}" if hasattr(found, "shape") else type(found).__name__
        raise UserError(f"the metric {one.name} returns {got}", where=one.where, help="return one figure")

    kinds = BOTH if options["several_answers"] else ONE
    return MetricDefinition(
        one.name,
        figure,
        minimize=options["minimize"],
        per_category=options["per_category"],
        description=f"of {one.path.name}",
        kinds=kinds,
    )


def _lines(file: ExtensionFile) -> dict[str, int]:
    """The lines of the dictionaries and of their entries, such as losses and losses.poly."""
    found: dict[str, int] = {}
    for node in ast.parse(file.text).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets += [node.target] if isinstance(node, ast.AnnAssign) else []
        for target in targets:
            if isinstance(target, ast.Name) and target.id in KINDS:
                found[target.id] = node.lineno
                entries = getattr(node, "value", None)
                keys = entries.keys if isinstance(entries, ast.Dict) else []
                found |= {f"{target.id}.{key.value!s}": key.lineno for key in keys if isinstance(key, ast.Constant)}
    return found


def _first_line(value: Any, file: ExtensionFile) -> int | None:
    """The line on which a function or class of the file begins; None for what comes from elsewhere."""
    plain = inspect.unwrap(value)
    code = getattr(plain, "__code__", None)
    if code is not None:
        return int(code.co_firstlineno) if code.co_filename == str(file.path) else None
    if inspect.isclass(plain):
        lines = {node.name: node.lineno for node in ast.parse(file.text).body if isinstance(node, ast.ClassDef)}
        return lines.get(plain.__name__)
    return None


def _refuse_taken(one: Definition, taken: Collection[str]) -> None:
    other = _definitions.get((one.kind, one.name))
    if other is not None or one.name in taken:
        by = f"by {other.where}" if other else "by sweep itself"
        raise UserError(
            f"the name {one.name} of {one.kind} is taken, {by}", where=one.where, help="give yours another name"
        )
