"""The user's own Python: the definitions in the files beside a search space, by kind and name.

Such a file is ordinary Python with plain dictionaries, such as `losses = {"poly": poly}`. It is loaded by its path,
once per path and text, and nothing else is loaded: neither its folder nor the current one is put on Python's path.
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
    """An extension file as it was first read: this text is what is loaded, copied and compared."""

    path: Path
    text: bytes = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> "ExtensionFile":
        """Read the file. Raises UserError if it cannot be read."""
        try:
            return cls(path, path.read_bytes())
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            what = "this extension file does not exist" if missing else f"cannot be read: {error.strerror}"
            raise UserError(
                what, where=str(path), help="extensions: takes paths relative to the search space"
            ) from None

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
    value: Any  # the value of that entry
    path: Path
    line: int
    keys: type[Part] = field(repr=False)  # the model of its keys: the name, those of every such part, and its own
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
        """Its own keys that may be left out, with their defaults."""
        fields = self.keys.model_fields
        return {key: fields[key].default for key in self.own if not fields[key].is_required()}

    def given(self, part: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of its own keys in a part of a recipe, with defaults for those left out."""
        found = self.keys.model_validate(part)
        return {key: getattr(found, key) for key in self.own}

    def called(self, function: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """Return the result of the function; an exception becomes a UserError with the line of the user's file."""
        try:
            return function(*given, **named)
        except (Exception, SystemExit) as error:
            if isinstance(error, UserError) or _no_room(error):
                raise  # it has its line already; or a smaller batch is tried
            raise blamed(error, self.path, f"{self.name} of {self.kind} failed", self.line) from error

    def module(self, *given: Any, **named: Any) -> Any:
        """Return the torch.nn.Module that a model or a head makes. Raises UserError for anything else."""
        found = self.called(self.value, *given, **named)
        if not hasattr(found, "state_dict"):
            what = f"{self.name} of {self.kind} makes {type(found).__name__} instead of a torch.nn.Module"
            raise UserError(what, where=self.where, help="return the module")
        return found

    def bound(self, part: Mapping[str, Any]) -> Callable[..., Any]:
        """Return the metric, loss or augmentation with its keys bound: it is called with data only."""
        keys, made = self.given(part), self.value
        if inspect.isclass(made):
            made = self.called(made, **keys)
        elif keys:
            made = partial(made, **keys)
        called: Callable[..., Any] = made
        return called


METRIC_OPTIONS = {"minimize": False, "per_category": True, "several_answers": False}
"""The options of a metric's entry besides its `function`, with their defaults."""

_definitions: dict[tuple[Kind, str], Definition] = {}
_modules: dict[tuple[str, str], ModuleType] = {}


def use(files: Sequence[ExtensionFile], taken: Mapping[Kind, Collection[str]] | None = None) -> None:
    """Make the definitions of these files, and no others, known in this process.

    taken: built-in names by kind. Raises UserError, with the place in the user's file, if a file cannot be loaded or
    one of its definitions cannot be used.
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
    """Return one line per file in use, with its definitions."""
    found: dict[str, dict[str, list[str]]] = {}
    for (kind, name), one in _definitions.items():
        found.setdefault(one.path.name, {}).setdefault(kind, []).append(name)
    return [
        f"{file}: {', '.join(f'{kind} {name}' for kind, names in kinds.items() for name in names)}"
        for file, kinds in found.items()
    ]


def find(kind: Kind, name: str) -> Definition | None:
    """Return the definition of that name in the files in use, if there is one."""
    return _definitions.get((kind, name))


def names(kind: Kind) -> list[str]:
    """Return the names of a kind that the files in use define."""
    return [name for known, name in _definitions if known == kind]


def needed(kind: Kind, name: str) -> Definition:
    """Return the definition of that name. Raises UserError if none is loaded: a stored recipe may need one."""
    found = find(kind, name)
    if found is None:
        raise UserError(
            f"no extension file defines '{brief(name)}' in {kind}",
            where="extensions",
            help=f"list the file that has it in {kind} = {{...}} under extensions: in the search space",
        )
    return found


def load(paths: Sequence[str]) -> None:
    """Use the files at these paths, in a process that was given only their paths."""
    use([ExtensionFile.read(Path(path)) for path in paths])


def stored(folder: Path, wanted: Mapping[str, str]) -> list[ExtensionFile]:
    """Return the copies of extension files in a study's folder that a recipe names, by file name and SHA-256.

    Raises EnvironmentFault for a copy that is missing or has changed.
    """
    found = []
    for path, checksum in ((folder / Path(name).name, checksum) for name, checksum in wanted.items()):
        copy = ExtensionFile.read(path) if path.is_file() else None
        if copy is None or copy.checksum != checksum:
            what = "is missing" if copy is None else "is not the one that the study started with"
            help = "restore it, or start another study with --new-study NAME"
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
    """Reserve standard output for the answer: anything that user code prints meanwhile goes to stderr."""
    answer = sys.stdout
    with redirect_stdout(sys.stderr):
        yield answer


class _Text(InspectLoader):
    """Imports the text that was read at first, whatever is at its path now."""

    def __init__(self, file: ExtensionFile) -> None:
        self.file = file

    def get_source(self, _fullname: str) -> str:
        return importlib.util.decode_source(self.file.text)

    def get_code(self, _fullname: str) -> CodeType:
        return self.source_to_code(self.file.text, str(self.file.path))


def _executed(file: ExtensionFile, name: str) -> ModuleType:
    """Execute the file's text and return the module."""
    path = file.path
    spec = importlib.util.spec_from_loader(name, _Text(file), origin=str(path))
    if spec is None or spec.loader is None:
        raise RuntimeError(f"no module can be made from {path}")
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import would look for a newer version online
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
    """True if torch is loaded and a device has run out of memory."""
    device = sys.modules.get("trainers.support.device")
    return device is not None and bool(device.no_room(error))


def blamed(error: BaseException, path: Path, what: str, line: int = 1) -> UserError:
    """Return an exception in user code as one sentence, with the last line of their file it passed, or `line`."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return UserError(f"{what}: {error.msg}", where=f"{path}:{error.lineno}", help="fix this line")
    line = _line_of(error, path) or line
    said = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        remedy = f"pip install {package}; a file of your own cannot be imported, so copy what you need from it"
        return UserError(f"{what}: it needs {package}, which is not installed", where=f"{path}:{line}", help=remedy)
    return UserError(f"{what}: {text}", where=f"{path}:{line}", help="fix this line")


def _line_of(error: BaseException, path: Path) -> int | None:
    """Return the innermost line of the file that was running when the exception was raised."""
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
            raise UserError(f"{kind} is not a dictionary", where=place, help=f'write {kind} = {{"name": function}}')
        found += [_definition(kind, name, value, file, lines) for name, value in entries.items()]
    if not found:
        words = ", ".join(KINDS)
        raise UserError(
            "the file defines nothing that a search space can name",
            where=str(path),
            help=f'write a dictionary such as losses = {{"poly": poly}}; its name can be {words}',
        )
    return found


def _definition(kind: Kind, name: Any, value: Any, file: ExtensionFile, lines: Mapping[str, int]) -> Definition:
    path = file.path
    place = f"{path}:{lines.get(f'{kind}.{name}', lines.get(kind, 1))}"
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserError(
            f"{brief(str(name))!r} cannot be a name in {kind}", where=place, help="use letters, digits and _"
        )
    options: dict[str, bool] = {}
    if kind == "metrics" and isinstance(value, dict):
        value, options = _unfolded(name, value, place)
    if not callable(value):
        raise UserError(
            f"{kind}[{name!r}] is {type(value).__name__}, which cannot be called",
            where=place,
            help="give a function or a class",
        )
    line = _first_line(value, file) or int(place.rpartition(":")[2])
    return Definition(kind, name, value, path, line, keys_of(kind, name, value, f"{path}:{line}"), options)


def _unfolded(name: str, entry: Mapping[Any, Any], place: str) -> tuple[Any, dict[str, bool]]:
    """Return the function and the options of a metric that is written as a dictionary."""
    options = {key: value for key, value in entry.items() if key != "function"}
    wrong = [key for key, value in options.items() if key not in METRIC_OPTIONS or not isinstance(value, bool)]
    if "function" not in entry or wrong:
        what = f"{brief(str(wrong[0]))!r}: {brief(repr(options[wrong[0]]))}" if wrong else "no function"
        words = ", ".join(METRIC_OPTIONS)
        remedy = f'write {{"function": {name}, ...}} and any of {words}, each True or False'
        raise UserError(f"the metric {name} has {what}", where=place, help=remedy)
    return entry["function"], options


def _metric(one: Definition) -> MetricDefinition:
    """Return the metric as evaluation calls it. Its parameters after the first two keep their defaults."""
    if needed := [key for key in one.own if key not in one.defaults]:
        what = f"the parameter {needed[0]} of the metric {one.name} has no default"
        raise UserError(what, where=one.where, help="a metric is called with only probabilities and labels")
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
    """Return the lines of the dictionaries and of their entries, such as losses and losses.poly."""
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
    """Return the line on which a function or class of the file starts; None if it comes from elsewhere."""
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
            f"the name {one.name} of {one.kind} is taken, {by}",
            where=one.where,
            help="give yours another name",
        )
