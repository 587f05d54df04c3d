"""The project as a user sees it: this machine, the command line, and the project's own tests that need a GPU."""

import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import torch

from sweeper.system import devices
from trainers.models import preflight

from .findings import Notes
from .place import Cpu
from .subjects import folder

ROOT = Path(__file__).parents[2]
COMMAND = ("optuna", "ruamel.yaml", "typer", "rich", "pandas", "scipy")
TESTS = (*COMMAND, "pytest", "pytest_timeout", "hypothesis")
MAIN = "from sweeper.cli import main; main()"


# ------------------------------------------------------------------------------------------- env
def env(place: Cpu, notes: Notes) -> None:
    """Record this machine, and check that the project finds the device that torch sees."""
    versions = {name: metadata.version(name) for name in ("torch", "timm", "numpy")}
    notes.figure("machine", python=platform.python_version(), cores=devices.cores(), **versions, **_gpu(place))
    slots = devices.slots(None if place.cuda else "cpu", "auto")
    found = {"slots": len(slots), "names": sorted({slot.home for slot in slots}), "env": dict(slots[0].env)}
    notes.promise("the project finds the device", slots[0].device.startswith(place.name), **found)
    room, total = devices.room(slots), devices.smallest(slots)
    notes.promise("--slots auto knows its memory", all(room.values()), free_gib=room, smallest_gpu_gib=total)
    problems = [problem.what for problem in preflight.gpus(devices.ids(slots)[:1])] if place.cuda else []
    notes.promise("this torch supports it", not problems, problems=problems)
    notes.figure("copies, GB per second", **_copies(place))


def _gpu(place: Cpu) -> dict[str, object]:
    if not place.cuda:
        return {}
    gib = round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return {"gpu": torch.cuda.get_device_name(), "gib": gib, "cudnn": cudnn, "cuda": torch.version.cuda}


def _copies(place: Cpu) -> dict[str, float]:
    """Return the GB per second of copies within the device (read and written), and from pinned host memory to it."""
    size = 2**30 if place.cuda else 2**22
    one, other = (torch.empty(size, dtype=torch.uint8, device=place.device) for _ in range(2))
    pinned = place.pinned(size // 4)
    inside = 2 * size / _seconds(place, lambda: other.copy_(one))
    across = size / 4 / _seconds(place, lambda: one[: size // 4].copy_(pinned, non_blocking=True))
    return {"device": round(inside / 1e9, 1), "pinned_host_to_device": round(across / 1e9, 1)}


def _seconds(place: Cpu, copy: Callable[[], object], times: int = 8) -> float:
    """Return the seconds per copy, the mean of several after one for warm-up."""
    copy()
    place.wait()
    began = time.perf_counter()
    for _ in range(times):
        copy()
    place.wait()
    return (time.perf_counter() - began) / times


# ------------------------------------------------------------------------------------------- cli
def cli(place: Cpu, notes: Notes) -> None:
    """Check the quickstart: draw images, kill a sweep, resume it with the same command, and look at the results."""
    if lacking := _lacking(COMMAND):
        notes.skip("the command line", f"not installed: {', '.join(lacking)}")
        return
    with folder() as home:
        drawn = _sweep(home, "data", "demo", str(home / "data"))
        notes.promise("sweep data demo", drawn.returncode == 0, said=drawn.stderr[-300:])
        space = [str(ROOT / "search_spaces/quickstart.yaml"), "--set", f"data.root={home / 'data'}"]
        where = ["--devices", "0" if place.cuda else "cpu"]
        size = ["--trials", "4", "--slots", "2"] if place.cuda else ["--trials", "2", "--set", "train.epochs=2"]
        run = ["run", *space, *where, *size, "--no-mlflow"]
        notes.promise("a sweep is killed after its first epoch", _killed(home, run))
        ended = _sweep(home, *run)
        notes.promise(
            "the same command resumes", ended.returncode == 0, code=ended.returncode, said=ended.stderr[-400:]
        )
        board = _sweep(home, "leaderboard", "quickstart", "--json")
        notes.promise(
            "sweep leaderboard", board.returncode == 0 and "COMPLETE" in board.stdout, said=board.stderr[-300:]
        )
        plan = _sweep(home, "plan", *space, *where)
        notes.promise("sweep plan", plan.returncode == 0, said=(plan.stdout or plan.stderr)[-500:])
        export = _sweep(home, "best", "quickstart", "--export", "submission", "--no-mlflow", *where)
        notes.promise("sweep best --export", export.returncode == 0, said=export.stderr[-300:])
        _doctor(home, notes)


def _doctor(home: Path, notes: Notes) -> None:
    """Check only that doctor reports findings. Some are negative on a machine without a network or MLflow."""
    said = _sweep(home, "doctor", "--json").stdout
    findings = json.loads(said)["findings"] if said.startswith("{") else []
    wrong = [finding["text"] for finding in findings if not finding["ok"]]
    notes.promise("sweep doctor", bool(findings), warns=wrong)


def _killed(home: Path, words: list[str]) -> bool:
    """Start a sweep, kill it, and return True if it was killed after its first epoch."""
    command = [sys.executable, "-c", MAIN, *words]
    with (home / "killed.log").open("wb") as log:
        running = subprocess.Popen(command, env=_environment(home), cwd=home, stdout=log, stderr=log)
        until = time.monotonic() + 300
        while running.poll() is None and time.monotonic() < until and not _records(home):
            time.sleep(0.05)
        alive = running.poll() is None
        running.kill()
        running.wait()
    return alive and bool(_records(home))


def _records(home: Path) -> list[Path]:
    return list((home / "mlruns").rglob("history.jsonl"))


def _sweep(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", MAIN, *words]
    return subprocess.run(command, env=_environment(home), cwd=home, capture_output=True, text=True)


def _environment(home: Path) -> dict[str, str]:
    """Return an environment without network access and with everything in `home`."""
    shown = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    ours = {"SWEEP_HOME": str(home / "mlruns"), "PYTHONPATH": shown, "HF_HUB_OFFLINE": "1", "CI": "1"}
    return {**os.environ, **ours}


# --------------------------------------------------------------------------------------- pytests
def pytests(place: Cpu, notes: Notes) -> None:
    """Run the tests that need a GPU, in every file that has one."""
    del place  # without a GPU, the tests are skipped
    if lacking := _lacking(TESTS):
        notes.skip("the tests that need a GPU", f"not installed: {', '.join(lacking)}")
        return
    files = needing_a_gpu()
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-k", "gpu", *map(str, files)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    last = ended.stdout.strip().splitlines()[-1:]
    notes.promise("the tests that need a GPU", ended.returncode == 0, files=[path.name for path in files], said=last)


def needing_a_gpu() -> list[Path]:
    """Return the files with a test that is skipped without a GPU, at least one: else pytest would run all tests."""
    found = [path for path in (ROOT / "tests").rglob("test_*.py") if 'reason="needs a GPU"' in path.read_text()]
    if not found:
        raise FileNotFoundError(f"no test below {ROOT / 'tests'} needs a GPU")
    return sorted(found)


def _lacking(packages: tuple[str, ...]) -> list[str]:
    return [name for name in packages if importlib.util.find_spec(name.split(".")[0]) is None]
