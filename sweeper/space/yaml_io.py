"""The YAML of a search space, read strictly and written back: the only module that uses ruamel.yaml."""

import math
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
)

from sweeper.space import defaults, extension_keys, hints, overrides
from sweeper.space.parameters import closed, is_distribution, opened
from sweeper.space.spec import Budget, Search, StudyFile, StudySpec
from sweeper.space.tree import Node, flow, parameters, scalar
from sweeper.space.validation import checked, known_metric
from sweeper.text import redacted, refuse_secret
from trainers.config import Recipe
from trainers.data_config import DataConfig
from trainers.support.errors import UserError
from trainers.support.files import recordable
from trainers.support.text import brief, did_you_mean, visible

__all__ = ["Budget", "Search", "StudySpec", "read", "recipe_yaml"]

SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods")
LARGEST, DEEPEST, MOST = 1 << 20, 30, 20_000  # bytes of a file, levels of nesting, keys and values
Place = Callable[[int, int], str]
"""Formats a place from a line and a column, both counted from 1."""


def read(path: Path, *, sets: Sequence[str] = (), text: str | None = None) -> StudySpec:
    """Read the search space at `path`; each of `sets`, such as train.loss.gamma=2, replaces or adds one value.

    Its extension files are loaded, and those of any other space forgotten. `text` replaces the contents of the file.

    Anything wrong with the text, its keys or its distributions raises UserError with file:line:column. The values of
    `train` are left to `space.Space`, which knows the categories.
    """
    text = _text(recordable(path)) if text is None else text
    tree = _document(text, lambda line, column: f"{path}:{line}:{column}")
    for assignment in sets:
        refuse_secret(assignment, f"--set {redacted(assignment)}")
        keys, value = overrides.split(assignment)
        place = f"--set {assignment}"
        tree = overrides.put(tree, keys, _value(value, lambda line, column: place))  # noqa: ARG005, B023
    return _spec(tree, path, text)


def data(path: Path) -> DataConfig:
    """Return the data of the search space at `path`. Loads none of its extension files; UserError as from `read`."""
    tree = _document(_text(recordable(path)), lambda line, column: f"{path}:{line}:{column}")
    entries: dict[str, Node] = tree.value  # type: ignore[assignment]
    return checked(DataConfig, entries.get("data", tree), "data")


def _spec(tree: Node, path: Path, text: str) -> StudySpec:
    """Return the study that a document describes; everything except `train` is validated here."""
    entries: dict[str, Node] = tree.value  # type: ignore[assignment]
    for key, child in entries.items():
        if key != "train":
            closed(child, key)
    given = extension_keys.files(entries.get("extensions"), path)
    extension_keys.use(given)
    header = {
        k: v if k != "train" or not isinstance(v.value, dict) else replace(v, value={}) for k, v in entries.items()
    }
    file = checked(StudyFile, replace(tree, value=extension_keys.judged(header)))
    if "metric" in entries:
        known_metric("metric", entries["metric"])
    train = entries.get("train", Node({}, str(path)))
    if is_distribution(train):
        raise UserError("train itself cannot be left open", where=train.where, help="leave values inside it open")
    train = opened(train, "train")
    budget = _budget(file, tree, train)
    return StudySpec(
        file.study or _named(path),
        file.data,
        file.metric,
        budget,
        file.search,
        train,
        path,
        text,
        keep_checkpoints=file.keep_checkpoints,
        extensions=given,
        preset=file.preset,
        rules=file.rules,
        prior=_prior(entries.get("search")),
        by_hours=file.budget.hours is not None and file.budget.trials is None,
    )


def _prior(search: Node | None) -> Node | None:
    """Return search.prior, if it is there."""
    return search.value.get("prior") if search and isinstance(search.value, dict) else None


def _named(path: Path) -> str:
    """Return a study's name, made from that of its file."""
    own_copy = path.name == "space.yaml" and (path.parent / "study.json").exists()
    if name := hints.name(path.resolve().parent.name if own_copy else path.stem):
        return name
    raise UserError("study is missing, and the file's name cannot be used", where=str(path), help="add study: NAME")


def _budget(file: StudyFile, tree: Node, train: Node) -> Budget:
    """Return the budget: one trial for a recipe. A space must set a limit, unless a grid ends by itself."""
    is_open = any(True for _ in parameters(train))
    if is_open and file.budget == Budget() and file.search.sampler.name != "grid":
        raise UserError(
            "budget is missing: values are left open, so the study needs a limit",
            where=tree.where,
            help="add budget: {trials: 40}, or {hours: 8}",
        )
    return file.budget if is_open or file.budget.trials else file.budget.model_copy(update={"trials": 1})


# ---------------------------------------------------------------------------------------- YAML -> tree
def _text(path: Path) -> str:
    if path.suffix.lower() in SPREADSHEETS and path.is_file():
        advice = "save its sheet as CSV (UTF-8), and name that file"
        raise UserError("a spreadsheet, not a search space", where=str(path), help=advice)
    try:
        raw = _bytes(path)
    except FileNotFoundError:
        beside = list(path.parent.iterdir()) if path.parent.is_dir() else []
        near = did_you_mean(path.name, [one.name for one in beside if one.suffix == ".yaml" or one.is_dir()])
        raise UserError("there is no such file", where=str(path), help=near) from None
    except IsADirectoryError:
        name = shlex.quote(str(path))
        advice = f"sweep init {name} writes a search space for these images, and sweep run {name} also runs it"
        raise UserError("a folder, not a search space", where=str(path), help=advice) from None
    except OSError as error:
        advice = "name a YAML file that you may read"
        raise UserError(f"cannot be read: {error.strerror}", where=str(path), help=advice) from None
    if len(raw) > LARGEST:
        raise UserError("too large for a search space", where=str(path), help="the limit is 1 MiB")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise UserError("not UTF-8 text", where=f"{path}:{line}:{column}", help="save the file as UTF-8") from None


def _bytes(path: Path) -> bytes:
    """Return the contents of the file, cut one byte above the limit; refuse pipes and devices, which may not end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError("not a file but a pipe or a device", where=str(path), help="write the YAML into a file")
    with path.open("rb") as file:
        return file.read(LARGEST + 1)


def _document(text: str, place: Place) -> Node:
    """Return the mapping in a file."""
    node = _value(text, place)
    if node.value is None:
        raise UserError(
            "the file is empty", where=node.where, help="a search space has data: and train:; see the README"
        )
    if not isinstance(node.value, dict):
        kind = "a list" if isinstance(node.value, list) else "a single value"
        raise UserError(
            f"{kind} at the top, where keys belong", where=node.where, help="write data: and train:; see the README"
        )
    return node


def _value(text: str, place: Place) -> Node:
    """Return the one YAML document in `text` as a tree; null if it is empty."""
    try:
        return _Builder(YAML(typ="safe", pure=True).parse(text), place).document()
    except MarkedYAMLError as error:
        _refuse_text(error, place)
    except YAMLError as error:  # a character that YAML does not allow
        before = text[: getattr(error, "position", 0)]
        where = place(before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise UserError("a character that YAML does not allow", where=where, help="retype the line") from None


def _refuse_text(error: MarkedYAMLError, place: Place) -> NoReturn:
    mark = error.problem_mark or error.context_mark
    where = place(mark.line + 1, mark.column + 1) if mark else place(1, 1)
    problem = str(error.problem or error.context)
    if "'\\t'" in problem:
        raise UserError("a tab where YAML needs spaces", where=where, help="indent with spaces") from None
    if "mapping values are not allowed" in problem:
        remedy = "a second colon on the line: put quotes around the value, or check the indentation"
        raise UserError("a colon in the wrong place for YAML", where=where, help=remedy) from None
    remedy = next((text for start, text in _MEND.items() if problem.startswith(start)), "")
    if problem.endswith(("got '['", "got '{'")):
        remedy = "a space after a colon, or a comma, is missing"
    context = f" {error.context}" if error.context and error.problem else ""
    raise UserError(f"not YAML: {problem}{context}", where=where, help=remedy) from None


_MEND = {
    "expected <block end>": "check the indentation of this line and those above",
    "expected the node content": "a bracket or brace was opened and not closed",
    "expected ',' or ']'": "a bracket or a comma is missing",
    "expected ',' or '}'": "a brace or a comma is missing",
    "found unexpected end of stream": "a quote was opened and not closed",
    "could not find expected ':'": "a key needs a colon and a space after it",
}


class _Builder:
    """Builds a tree from the parser's events as they come, so that a YAML bomb is refused before it grows."""

    def __init__(self, events: Iterator[Event], place: Place) -> None:
        self.events, self.place, self.depth, self.count = events, place, 0, 0

    def document(self) -> Node:
        root: Node | None = None
        for event in self.events:
            if isinstance(event, DocumentStartEvent):
                if root is not None or event.version or event.tags:
                    what = "a second document" if root is not None else "a % directive"
                    raise UserError(f"{what} in the file", where=self.at(event), help="one plain document per file")
                root = self.node(next(self.events))
        return root or Node(None, self.place(1, 1), self.place(1, 1))

    def node(self, event: Event) -> Node:
        where = self.at(event)
        self.refuse_extras(event, where)
        self.count += 1
        if self.count > MOST:
            raise UserError(f"more than {MOST} values", where=where, help="a search space needs a few dozen")
        if isinstance(event, ScalarEvent):
            return Node(self.scalar(event, where), where)
        self.depth += 1
        if self.depth > DEEPEST:
            raise UserError(f"nested more than {DEEPEST} levels deep", where=where, help="a recipe needs about five")
        value = self.mapping() if isinstance(event, MappingStartEvent) else self.sequence()
        self.depth -= 1
        return Node(value, where)

    def mapping(self) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        while not isinstance(event := next(self.events), MappingEndEvent):
            where = self.at(event)
            self.refuse_extras(event, where)
            if not isinstance(event, ScalarEvent):
                raise UserError("a key must be plain text", where=where, help="check the brackets and braces here")
            self.refuse_controls(event.value, where)
            if event.value in entries:
                first, key = entries[event.value].key, brief(event.value)
                raise UserError(f"duplicate key '{key}'", where=where, help=f"it first appears at {first}")
            entries[event.value] = replace(self.node(next(self.events)), key=where)
        return entries

    def sequence(self) -> list[Node]:
        items: list[Node] = []
        while not isinstance(event := next(self.events), SequenceEndEvent):
            items.append(self.node(event))
        return items

    def scalar(self, event: ScalarEvent, where: str) -> Any:
        self.refuse_controls(event.value, where)
        refuse_secret(event.value, where)
        value = scalar(event.value) if event.implicit[0] else event.value
        if isinstance(value, float) and not math.isfinite(value):
            what = f"{brief(event.value)} is not a finite number"
            raise UserError(what, where=where, help="write a number up to 1e308")
        return value

    def refuse_controls(self, text: str, where: str) -> None:
        """Refuse characters that YAML itself refuses, but that escapes in quotes can spell."""
        if text != visible(text):
            what = f"an invisible character: {brief(text)}"
            raise UserError(what, where=where, help="write it without the escape")

    def refuse_extras(self, event: Any, where: str) -> None:
        """Refuse aliases, which can grow without bound, and tags, which can name types."""
        if isinstance(event, AliasEvent) or event.anchor:
            sign = "*" if isinstance(event, AliasEvent) else "&"
            raise UserError(
                f"aliases are not allowed: {sign}{brief(event.anchor)}", where=where, help="write the value out"
            )
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            raise UserError(
                f"tags are not allowed: {brief(tag)}", where=where, help="write the value without the tag"
            )

    def at(self, event: Event) -> str:
        return self.place(event.start_mark.line + 1, event.start_mark.column + 1)


# ------------------------------------------------------------------------------------------ recipe -> YAML
def recipe_yaml(study: str, recipe: Recipe, *, comment: str = "") -> str:
    """Return a search space with nothing left open, which `read` accepts and which closes to an equal recipe.

    Every value is written, including defaults, so that the text means the same when defaults change. Only derived
    values are left out: they follow from the others again, even if one of those is changed.
    """
    lines = [f"# {_printable(line)}".rstrip() for line in comment.splitlines()]
    train = recipe.train.model_dump()
    train = _written(train) | {part: None for part in defaults.PARTS if train[part] is None}  # else the family's
    data = {key: value for key, value in recipe.data.model_dump().items() if f"data.{key}" not in recipe.derived}
    data = _written(data) | {key: None for key in ("split",) if data[key] is None}  # else that column
    lines += [f"study: {flow(study)}", f"data: {flow(data)}", f"metric: {recipe.metric}"]
    if recipe.extensions:
        lines.insert(-2, f"extensions: {flow(list(recipe.extensions))}")
    if recipe.folds:
        lines.append(f"search: {flow({'folds': recipe.folds})}")
    lines += ["train:", *(f"  {key}: {flow(value)}" for key, value in train.items())]
    return "\n".join(lines) + "\n"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _written(part: dict[str, Any]) -> dict[str, Any]:
    """Return the entries that are set, name first; null means the same as leaving a key out."""
    named = {"name": part["name"]} if "name" in part else {}
    kept = {key: value for key, value in part.items() if value is not None}
    return named | {key: _written(value) if isinstance(value, dict) else value for key, value in kept.items()}
