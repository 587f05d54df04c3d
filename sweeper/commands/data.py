"""What `sweep data check` answers: what was understood of a data set, and every fault and note."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from sweeper.errors import UserError, line
from sweeper.space import yaml_io
from sweeper.terminal.output import counting
from sweeper.text import counted
from trainers.config import DataConfig
from trainers.data import check, layouts
from trainers.data.check import Findings
from trainers.data.summary import Summary

SPACES = (".yaml", ".yml")
SHOWN = 20  # notes that are printed; --json has all


class Checked(NamedTuple):
    """What was understood of a data set, and what was found."""

    summary: Summary
    found: Findings


def run(path: Path, sets: Sequence[str]) -> Checked:
    """What is found in the data of a search space, in a folder, or in a file of labels.

    Images are counted on stderr as they are looked at. Raises DataError only where there is no data set.
    """
    data = _asked(path, sets)
    with counting("checking images") as count:
        found = check.check(data, count)
    return Checked(found.summary(data), found)


def refuse_uncached(path: Path) -> None:
    """Raise UserError where `path` is no search space: how large images are decoded is said by its image sizes."""
    if _is_data(path):
        raise UserError(
            "--cache wants a search space: its image sizes say how large images are decoded",
            where=str(path),
            help="sweep data check SPACE.yaml --cache",
        )


def _asked(path: Path, sets: Sequence[str]) -> DataConfig:
    text = f"study: check\ndata: {_yaml(path)}\ntrain: {{backbone: none}}\n" if _is_data(path) else None
    return yaml_io.read(path, sets=sets, text=text).data


def _is_data(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() in layouts.TABLES or layouts.is_archive(path)


def _yaml(path: Path) -> str:
    """The value of `data` for what lies at `path`; JSON strings are YAML."""
    guessed = layouts.guess(path)
    keys: dict[str, Any] = {"layout": guessed.layout, "root": guessed.root}
    keys |= {"labels": guessed.labels} if guessed.labels != DataConfig(root="").labels else {}
    return "{" + ", ".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in keys.items()) + "}"


def document(checked: Checked) -> dict[str, Any]:
    """As plain values for --json."""
    found = checked.found
    lists = {"faults": [asdict(f) for f in found.faults], "notes": [asdict(f) for f in found.notes]}
    return {"schema_version": 1, "ok": not found.faults, "data": checked.summary.model_dump(mode="json"), **lists}


def lines(checked: Checked, path: Path) -> Iterator[str]:
    """As a person reads it; `path` is what was to be checked."""
    found = checked.found
    if _is_data(path):
        yield f"in a search space: data: {_yaml(path)}"
    yield from checked.summary.lines()
    yield from (f"fault  {line(fault)}" for fault in found.faults)
    yield from (f"note   {line(note)}" for note in found.notes[:SHOWN])
    if len(found.notes) > SHOWN:
        yield f"       and {len(found.notes) - SHOWN} more notes: --json lists them all"
    yield f"{counted(len(found.faults), 'fault')}, {counted(len(found.notes), 'note')}"
