"""I1 to I8: what must hold after every fault, looked at in one place."""

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.support.processes import Ended, Lab

MARK = 39  # bytes of the digest at the end of a real last.ckpt
STATUS = {"COMPLETE": "FINISHED", "PRUNED": "FINISHED", "FAILED": "FAILED", "RUNNING": "KILLED"}
TIMES = ("seconds", "time", "images_per_second", "peak_memory_gb")


class Noting(Protocol):
    """The `case` fixture."""

    def held(self, *names: str) -> None: ...


@dataclass(frozen=True)
class Reference:
    """What a run without a fault came to: each trial's end without its times, and the best of them."""

    results: Mapping[int, dict[str, Any]]

    @classmethod
    def of(cls, lab: Lab) -> "Reference":
        return cls({number: plain(one) for number, one in lab.results().items()})

    @property
    def best(self) -> tuple[Any, ...]:
        done = [one for one in self.results.values() if one["state"] == "COMPLETE"]
        top = max(done, key=lambda one: one["value"])
        return top["number"], top["params"], top["value"], top["epoch"]


def plain(result: Mapping[str, Any], *, but: Sequence[str] = TIMES) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key not in but}


def check(
    case: Noting,
    lab: Lab,
    *,
    before: Mapping[int, dict[str, Any]] | None = None,
    ended: Ended | None = None,
    code: int = 0,
    last: str = "",
    same_as: Reference | None = None,
    whole: bool = True,
    mlflow: bool = True,
) -> None:
    """Look at every invariant that can be looked at.

    `before`: the ends on record before the fault. `ended`: the last command, which is to have `code` and to say
    `last` in its last line. `same_as`: the run without the fault, all of which is to come out the same, or only its
    best trial where more than one worker ran (`whole` False).
    """
    if before is not None:
        case.held(_i1(lab, before))
    case.held(_i2(lab), _i3(lab), _i4(lab))
    if mlflow:
        if ended is not None and "still lacks part" in ended.err:  # as it says, and how to go on
            assert "still lacks" not in lab.caught_up().out
        case.held(_i5(lab))
    case.held(_i6(lab))
    if ended is not None:
        case.held(_i7(ended, code, last))
    if same_as is not None:
        case.held(_i8(lab, same_as, whole))


def _i1(lab: Lab, before: Mapping[int, dict[str, Any]]) -> str:
    now = lab.results()
    for number, result in before.items():
        assert now.get(number) == result, f"trial {number} has changed: {result} -> {now.get(number)}"
    return "I1"


def _i2(lab: Lab) -> str:
    """Numbers are 0 to n - 1, the last perhaps not born yet, and each is its folder's; the ledger has the ends on
    record, each once; nothing was evaluated to the end twice.
    """
    numbers = [int(folder.name) for folder in lab.trials]
    assert numbers == list(range(len(numbers))), f"numbers of the folders: {numbers}"
    unborn = [number for number in numbers if not (lab.study / f"trials/{number:04d}/config.json").exists()]
    assert unborn in ([], numbers[-1:]), f"folders without a configuration: {unborn}"
    ends = {number: one["state"] for number, one in lab.results().items()}
    assert {number: one["number"] for number, one in lab.results().items()} == {number: number for number in ends}
    noted = [(one["number"], one["state"]) for one in _noted(lab)]
    assert set(noted) <= set(ends.items()), f"{noted} in the ledger, {ends} on record"
    assert len(noted) == len(set(noted)), f"twice in the ledger: {noted}"
    done = [number for number, state in ends.items() if state == "COMPLETE"]
    recipes = Counter(json.dumps(_config(lab, number)["recipe"], sort_keys=True) for number in done)
    assert max(recipes.values(), default=1) == 1, "a configuration was evaluated twice"
    return "I2"


def exported(lab: Lab) -> None:
    """Look at study.db after a sweep that has ended: Optuna finds every trial there, by our numbers, as it is."""
    with closing(sqlite3.connect(lab.study / "study.db")) as link:
        rows = link.execute("SELECT number, state FROM trials ORDER BY number").fetchall()
        reports = "SELECT t.number, count(*) FROM trials t JOIN trial_intermediate_values USING (trial_id) GROUP BY 1"
        counts = dict(link.execute(reports).fetchall())
    told = {"COMPLETE": "COMPLETE", "PRUNED": "PRUNED", "FAILED": "FAIL"}
    ends = lab.results()
    assert rows == [(number, told[one["state"]]) for number, one in sorted(ends.items())]
    assert counts == {number: one["epochs"] for number, one in ends.items() if one["epochs"]}


def _noted(lab: Lab) -> list[dict[str, Any]]:
    """The ends in the ledger; its last line may be torn, which the next call mends."""
    path = lab.study / "trial_index.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line)["result"] for line in lines if line.endswith("\n")]


def _config(lab: Lab, number: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((lab.study / f"trials/{number:04d}/config.json").read_text())
    return found


def history(folder: Path) -> list[dict[str, Any]]:
    """Every line of the history; one that is torn raises."""
    path = folder / "history.jsonl"
    text = path.read_text() if path.exists() else ""
    assert not text or text.endswith("\n"), f"{path} has a torn tail"
    return [json.loads(line) for line in text.splitlines()]


def _i3(lab: Lab) -> str:
    ends = lab.results()
    for folder in lab.trials:
        steps = [epoch["number"] for epoch in history(folder)]
        assert steps == list(range(1, len(steps) + 1)), f"{folder.name}: epochs {steps}"
        if (end := ends.get(int(folder.name))) is not None:
            assert len(steps) == end["epochs"], (
                f"{folder.name}: {len(steps)} epochs on record, {end['epochs']} in its end"
            )
    return "I3"


def _i4(lab: Lab) -> str:
    """Of the real trainer the digest is looked at, of the fake one, which has none, whether the file is whole."""
    for path in lab.study.glob("*/*/last.ckpt"):
        content = path.read_bytes()
        if content[:1] == b"{":
            json.loads(content)
        else:
            assert content[-MARK:] == b"sha256:" + hashlib.sha256(content[:-MARK]).digest(), f"{path} is damaged"
    for path in lab.study.glob("*/*/model.safetensors"):
        content = path.read_bytes()
        size = int.from_bytes(content[:8], "little")
        ends = [one["data_offsets"][1] for name, one in json.loads(content[8 : 8 + size]).items() if name[0] != "_"]
        assert len(content) == 8 + size + max(ends), f"{path} is cut"
    return "I4"


def _i5(lab: Lab) -> str:
    """Each trial has one run, whose points are its history's, and whose end is its own."""
    twin = json.loads((lab.study / "mlflow.json").read_text())
    with closing(sqlite3.connect(lab.home / "mlflow.db")) as link:
        born = "SELECT t.run_uuid, t.value FROM tags t WHERE t.key = 'sweep.id' AND t.value LIKE ?"
        runs = dict(map(reversed, link.execute(born, (f"{twin['id']}/trials/%",)).fetchall()))  # type: ignore[arg-type]
        for folder in lab.trials:
            if (folder / "config.json").exists():
                _same(link, runs[f"{twin['id']}/trials/{folder.name}"], folder)
        assert len(runs) == len([1 for folder in lab.trials if (folder / "config.json").exists()])
        ((parent,),) = link.execute("SELECT status FROM runs WHERE run_uuid = ?", (twin["run"],)).fetchall()
        assert parent != "RUNNING" or lab.processes(), "the study's run is RUNNING, and nobody works on it"
    return "I5"


def _same(link: sqlite3.Connection, run: str, folder: Path) -> None:
    epochs = history(folder)
    rows = link.execute("SELECT step, value FROM metrics WHERE run_uuid = ? AND key = 'val_loss'", (run,)).fetchall()
    assert sorted(step for step, _ in rows) == [epoch["number"] for epoch in epochs], f"{folder.name}: steps {rows}"
    for step, value in rows:
        assert value == float(f"{epochs[step - 1]['val']['loss']:.5g}"), f"{folder.name}: {value} at step {step}"
    doubled = "SELECT key, step, count(*) FROM metrics WHERE run_uuid = ? GROUP BY key, step HAVING count(*) > 1"
    assert not link.execute(doubled, (run,)).fetchall(), f"{folder.name}: points twice"
    ((status,),) = link.execute("SELECT status FROM runs WHERE run_uuid = ?", (run,)).fetchall()
    path = folder / "result.json"
    state = json.loads(path.read_text())["state"] if path.exists() else "RUNNING"
    known = {STATUS[state], *(("RUNNING",) if (folder / "paused").exists() else ())}
    assert status in known, f"{folder.name}: {status} in MLflow, {state} on record"


def _i6(lab: Lab) -> str:
    assert not lab.processes(), lab.processes()
    left = [path for path in lab.home.rglob("*") if path.name.endswith(".tmp") or path.name.startswith("next.")]
    assert not left, left
    return "I6"


def _i7(ended: Ended, code: int, last: str) -> str:
    assert ended.code == code, f"exit code {ended.code} instead of {code}:\n{ended.err}"
    assert last in ended.last, f"the last word is {ended.last!r}:\n{ended.err}"
    assert "Traceback" not in ended.err, ended.err
    return "I7"


def _i8(lab: Lab, reference: Reference, whole: bool) -> str:
    mine = Reference.of(lab)
    assert mine.best == reference.best
    if whole:
        for number in sorted({*mine.results, *reference.results}):
            ours, theirs = mine.results.get(number), reference.results.get(number)
            assert ours == theirs, f"trial {number}: {ours}, without the fault {theirs}"
    return "I8"
