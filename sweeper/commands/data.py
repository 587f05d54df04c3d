"""`sweep data check`: how a data set is understood, with every fault and note."""

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
ON_COMMAND_LINE = "a key of data can also be set on the command line, such as --set data.path=COLUMN"


class Checked(NamedTuple):
    """A data set as it was understood, with its faults and notes."""

    data: DataConfig
    summary: Summary
    found: Findings


def run(path: Path, sets: Sequence[str], *, again: bool = False) -> Checked:
    """Check the data of a search space, a folder, or a file of labels.

    Progress is shown on stderr. With `again` every image is checked; otherwise, images that have not changed since
    their last check are skipped. Raises DataError only if there is no data set.
    """
    data = asked(path, sets)
    with counting("checking images") as count:
        found = check.check(data, count, cache=paths.cache(), again=again)
    return Checked(data, found.summary(data), found)


def refuse_uncached(path: Path) -> None:
    """Raise UserError if `path` is not a search space, whose image sizes are needed to decode images."""
    if is_data(path):
        raise UserError(
            "--cache needs a search space: its image sizes determine how large images are decoded",
            where=str(path),
            help="sweep data check SPACE.yaml --cache",
        )


def asked(path: Path, sets: Sequence[str]) -> DataConfig:
    """Return the data config of a search space, or the one guessed for the data set at `path`, changed by `sets`."""
    text = f"study: check\ndata: {_yaml(path)}\ntrain: {{backbone: none}}\n" if is_data(path) else None
    return yaml_io.read(path, sets=sets, text=text).data


def is_data(path: Path) -> bool:
    """True if `path` is a data set (a folder, a table, or an archive) rather than a search space."""
    return path.is_dir() or path.suffix.lower() in layouts.TABLES or layouts.is_archive(path)


def _yaml(path: Path) -> str:
    """Return the value of `data` for the data set at `path`."""
    guessed = layouts.guess(path)
    keys: dict[str, Any] = {"layout": guessed.layout, "root": guessed.root}
    keys |= {"labels": guessed.labels} if guessed.labels != DataConfig(root="").labels else {}
    keys |= {"crop": guessed.crop} if guessed.crop != "none" else {}
    return _flow(keys)


def _flow(keys: dict[str, Any]) -> str:
    """Return a YAML mapping on one line; JSON values are YAML."""
    return "{" + ", ".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in keys.items()) + "}"


def document(checked: Checked) -> dict[str, Any]:
    """Return the outcome as plain values for --json."""
    found = checked.found
    lists = {"faults": [asdict(f) for f in found.faults], "notes": [asdict(f) for f in found.notes]}
    return {"schema_version": 1, "ok": not found.faults, "data": checked.summary.model_dump(mode="json"), **lists}


def lines(checked: Checked, path: Path, *, every: bool = False) -> Iterator[str]:
    """Yield the outcome as text: one line per kind of note, or per note with `every`; `path` is what was checked."""
    found, kinds = checked.found, checked.found.kinds
    if is_data(path):
        yield f"in a search space: data: {_flow(checked.data.model_dump(mode='json', exclude_unset=True))}"
    yield from checked.summary.lines(columns())
    yield from (f"fault  {line(fault)}" for fault in found.faults)
    if is_data(path) and found.faults and checked.data.layout == "table":
        yield f"help   {ON_COMMAND_LINE}"
    shown = [(note, 1) for note in found.notes] if every else kinds
    yield from (f"note   {line(note)}{': --all lists them' if count > 1 else ''}" for note, count in shown)
    count = sum(count for _, count in kinds)
    yield f"{counted(len(found.faults), 'fault')}, {counted(count, 'note')}"
