"""What `sweep data check` answers: what was understood of a data set, and every fault and note."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from sweeper.errors import UserError, line
from sweeper.space import yaml_io
from sweeper.store import paths
from sweeper.terminal.output import columns, counting
from sweeper.text import counted
from trainers.data import check, layouts
from trainers.data.check import Findings
from trainers.data.summary import Summary
from trainers.data_config import DataConfig

SPACES = (".yaml", ".yml")


class Checked(NamedTuple):
    """What was understood of a data set, and what was found."""

    data: DataConfig
    summary: Summary
    found: Findings


def run(path: Path, sets: Sequence[str], *, again: bool = False) -> Checked:
    """What is found in the data of a search space, in a folder, or in a file of labels.

    Images are counted on stderr as they are looked at, all of them with `again`, else those that were not looked at
    as they are now. Raises DataError only where there is no data set.
    """
    data = asked(path, sets)
    with counting("checking images") as count:
        found = check.check(data, count, cache=paths.cache(), again=again)
    return Checked(data, found.summary(data), found)


def refuse_uncached(path: Path) -> None:
    """Raise UserError where `path` is no search space: how large images are decoded is said by its image sizes."""
    if is_data(path):
        raise UserError(
            "--cache wants a search space: its image sizes say how large images are decoded",
            where=str(path),
            help="sweep data check SPACE.yaml --cache",
        )


def asked(path: Path, sets: Sequence[str]) -> DataConfig:
    """The data of a search space, or how what lies at `path` is read, with the changes of `sets`."""
    text = f"study: check\ndata: {_yaml(path)}\ntrain: {{backbone: none}}\n" if is_data(path) else None
    return yaml_io.read(path, sets=sets, text=text).data


def is_data(path: Path) -> bool:
    """Whether `path` is a data set rather than a search space: a folder, a table, or a packed one."""
    return path.is_dir() or path.suffix.lower() in layouts.TABLES or layouts.is_archive(path)


def _yaml(path: Path) -> str:
    """The value of `data` for what lies at `path`."""
    guessed = layouts.guess(path)
    keys: dict[str, Any] = {"layout": guessed.layout, "root": guessed.root}
    keys |= {"labels": guessed.labels} if guessed.labels != DataConfig(root="").labels else {}
    keys |= {"crop": guessed.crop} if guessed.crop != "none" else {}
    return _flow(keys)


def _flow(keys: dict[str, Any]) -> str:
    """As a mapping of YAML on one line; JSON values are YAML."""
    return "{" + ", ".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in keys.items()) + "}"


def document(checked: Checked) -> dict[str, Any]:
    """As plain values for --json."""
    found = checked.found
    lists = {"faults": [asdict(f) for f in found.faults], "notes": [asdict(f) for f in found.notes]}
    return {"schema_version": 1, "ok": not found.faults, "data": checked.summary.model_dump(mode="json"), **lists}


def lines(checked: Checked, path: Path, *, every: bool = False) -> Iterator[str]:
    """As a person reads it: a line for each kind of note, or for every one; `path` is what was to be checked."""
    found, kinds = checked.found, checked.found.kinds
    if is_data(path):
        yield f"in a search space: data: {_flow(checked.data.model_dump(mode='json', exclude_unset=True))}"
    yield from checked.summary.lines(columns())
    yield from (f"fault  {line(fault)}" for fault in found.faults)
    shown = [(note, 1) for note in found.notes] if every else kinds
    yield from (f"note   {line(note)}{': --all lists them' if count > 1 else ''}" for note, count in shown)
    count = sum(count for _, count in kinds)
    yield f"{counted(len(found.faults), 'fault')}, {counted(count, 'note')}"
