"""Run the sections one after another, each in its own process: a crash of CUDA or a hang costs only that section."""

import argparse
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import __doc__ as purpose
from .findings import Finding, Notes

ROOT = Path(__file__).parents[2]
PATIENCE = {"cuda": 1.0, "cpu": 6.0}  # factor for the seconds of a section
BUDGET = {"cuda": 480.0, "cpu": 2400.0}  # seconds
LEAST = 15.0  # seconds that must be left for a section to start


@dataclass(frozen=True)
class Section:
    """A function of one of the modules here, and the seconds after which it is killed."""

    name: str
    module: str
    seconds: float


SECTIONS = (  # by importance: sections that no longer fit are left out
    Section("env", "whole", 60),
    Section("waits", "steps", 120),
    Section("race", "steps", 60),
    Section("feed", "steps", 60),
    Section("overflow", "steps", 60),
    Section("learns", "training", 90),
    Section("memory", "room", 80),
    Section("speed", "pace", 150),
    Section("resumes", "training", 60),
    Section("trial", "training", 60),
    Section("cli", "whole", 150),
    Section("packed", "pace", 90),
    Section("compiled", "training", 120),
    Section("pytests", "whole", 110),
)
CHILDREN = (*SECTIONS, Section("neighbour", "pace", 60))


@dataclass(frozen=True)
class Ended:
    """The findings of a finished section."""

    section: str
    seconds: float
    findings: list[Finding]


def main() -> int:
    """Print the table, and write gpu_check.json and log.txt. Return 1 if a promise does not hold."""
    given = _arguments()
    if given.section:
        return _child(given)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # kills the running section, too
    out, began = Path(given.out), time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    ended: list[Ended] = []
    for one in _sections(given, out, began):
        ended.append(one)
        for finding in one.findings:
            print(f"{one.section:9} {finding}", flush=True)
        _write(out / "gpu_check.json", given.device, ended)
    counts = Counter(finding.verdict for one in ended for finding in one.findings)
    words = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("ok", "FAIL", "info", "skipped"))
    print(f"\n{time.monotonic() - began:.0f} s: {words}; {out / 'gpu_check.json'}")
    return int(counts["FAIL"] > 0)


def _arguments() -> argparse.Namespace:
    ask = argparse.ArgumentParser(description=purpose, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    ask.add_argument("--out", default="gpu_check", help="folder for gpu_check.json and log.txt")
    ask.add_argument("--budget", type=float, help="seconds in total; default: 480 on a GPU")
    ask.add_argument("--only", default="", help="sections, separated by commas")
    ask.add_argument("--section", choices=[one.name for one in CHILDREN], help=argparse.SUPPRESS)
    ask.add_argument("--notes", help=argparse.SUPPRESS)
    given = ask.parse_args()
    if unknown := set(_names(given)) - {one.name for one in SECTIONS}:
        ask.error(f"no section {', '.join(sorted(unknown))}; sections: {', '.join(one.name for one in SECTIONS)}")
    return given


def _names(given: argparse.Namespace) -> list[str]:
    return [name for name in given.only.split(",") if name]


def _sections(given: argparse.Namespace, out: Path, began: float) -> Iterator[Ended]:
    """Run the requested sections, leaving out those that no longer fit the budget."""
    names, budget = _names(given), given.budget or BUDGET[given.device]
    with (out / "log.txt").open("w", encoding="utf-8") as log:
        for section in SECTIONS:
            if names and section.name not in names:
                continue
            left = budget - (time.monotonic() - began)
            if left < LEAST:
                late = Finding("left out", "skipped", {"why": f"the budget of {budget:.0f} s is spent"})
                yield Ended(section.name, 0.0, [late])
                continue
            yield _run(section, given.device, min(left, section.seconds * PATIENCE[given.device]), log)


def _run(section: Section, device: str, limit: float, log: Any) -> Ended:
    """Run one section in its own process, which is killed with all its children if it takes too long."""
    began = time.monotonic()
    print(f"===== {section.name}", file=log, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        notes = Notes(Path(folder) / "notes.jsonl")
        command = [sys.executable, "-m", "benchmarks.gpu_check", "--device", device, "--section", section.name]
        command += ["--notes", str(notes.path)]
        running = subprocess.Popen(
            command, cwd=ROOT, env=_environment(), stdout=log, stderr=log, start_new_session=True
        )
        code = _waited(running, limit)
        found = list(notes.read())
    if code is None:
        found.append(Finding("took too long", "FAIL", {"limit_s": round(limit)}))
    elif code:
        found.append(Finding("crashed, see log.txt", "FAIL", {"code": code}))
    return Ended(section.name, round(time.monotonic() - began, 1), found)


def _waited(running: subprocess.Popen[Any], limit: float) -> int | None:
    """Return the exit code, or None if the process had to be killed."""
    try:
        return running.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def _environment() -> dict[str, str]:
    """Return the environment: waiting threads sleep, as in workers, and nothing is downloaded."""
    return {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", **os.environ}


def _child(given: argparse.Namespace) -> int:
    """Run one section in this process."""
    from .place import place

    module = next(one.module for one in CHILDREN if one.name == given.section)
    work: Callable[..., None] = getattr(importlib.import_module(f"{__package__}.{module}"), given.section)
    work(place(given.device), Notes(Path(given.notes)))
    return 0


def _write(path: Path, device: str, ended: Sequence[Ended]) -> None:
    """Write all findings so far, with the date and the commit."""
    asked = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    found = [
        {"section": one.section, "seconds": one.seconds, "what": f.what, "verdict": f.verdict, "figures": f.figures}
        for one in ended
        for f in one.findings
    ]
    head = {"date": datetime.now(UTC).date().isoformat(), "commit": asked.stdout.strip(), "device": device}
    path.write_text(json.dumps({**head, "findings": found}, indent=1, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
