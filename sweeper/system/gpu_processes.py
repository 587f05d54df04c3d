"""GPU memory that is no longer in use, held by workers whose sweep is gone or by processes that are not visible."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

NVIDIA_SMI_TIMEOUT_S = 5.0  # seconds for nvidia-smi
APPS = "--query-compute-apps=pid,process_name,used_memory"
PROC = Path("/proc")


@dataclass(frozen=True)
class Orphan:
    """A process that holds GPU memory for nothing: its id, the amount, the reason, and how to free it."""

    pid: int
    mib: int | None  # None where nvidia-smi gives none
    why: str
    remedy: str

    def __str__(self) -> str:
        memory = "an unknown amount" if self.mib is None else f"{self.mib} MiB"
        return f"{memory} of GPU memory held by {self.why} (pid {self.pid}); {self.remedy}"


def found(*, patience: float = NVIDIA_SMI_TIMEOUT_S) -> list[Orphan]:
    """Return every orphan known to nvidia-smi; none if that program is missing or does not answer in time."""
    return list(among(smi(APPS, patience=patience)))


def among(apps: Sequence[Sequence[str]]) -> Iterator[Orphan]:
    """Yield the orphans among lines of (pid, name, MiB)."""
    for pid, _, used in apps:
        if pid.isdigit() and (seen := _judged(int(pid))):
            yield Orphan(int(pid), int(used) if used.isdigit() else None, *seen)


def _judged(pid: int) -> tuple[str, str] | None:
    """Return why a process is an orphan and how to free its memory; None if it is not one, or not on Linux."""
    if not PROC.exists():
        return None
    words = _command(pid)
    if words is None:
        frees = f"run kill -9 {pid} where it runs; if it runs nowhere, restart the machine"
        return "a process that is not visible from here: in another container, or dead", frees
    state, parent = _stat(pid)
    if "sweeper.worker" not in words or parent == _named_parent(words):
        return None
    if state == "D":
        return "a worker whose sweep is gone and that hangs in the driver", "restart the machine to free it"
    return "a worker whose sweep is gone", f"run kill -9 {pid} to free it"


def _command(pid: int) -> list[str] | None:
    """Return the words of its command line, empty for another user's process; None if the process is gone."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1] or None
    except (FileNotFoundError, ProcessLookupError):
        return None
    except PermissionError:
        return []


def _named_parent(words: Sequence[str]) -> int | None:
    """Return the process id of the coordinator named on a worker's command line."""
    following = words[words.index("--parent") + 1 :] if "--parent" in words else []
    return int(following[0]) if following and following[0].isdigit() else None


def _stat(pid: int) -> tuple[str, int | None]:
    """Return its state, a letter, and its parent; X and None for a process that has just ended."""
    try:
        state, parent = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return "X", None
    return state, int(parent)


def smi(query: str, *, patience: float = 20.0) -> list[tuple[str, str, str]]:
    """Return the lines of three cells that nvidia-smi prints; none if it is missing or does not answer in time."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, query, "--format=csv,noheader,nounits"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=patience)
    except subprocess.TimeoutExpired:
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in ended.stdout.splitlines()]
    return [(row[0], row[1], row[2]) for row in rows if len(row) == 3]
