"""GPU memory that nobody uses any more: held by workers whose sweep is gone, or by processes that cannot be seen."""

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
    """A holder of GPU memory: its process, how much, why it is one, and the command that frees it."""

    pid: int
    mib: int | None  # None where nvidia-smi does not say
    why: str
    remedy: str

    def __str__(self) -> str:
        memory = "an unknown share" if self.mib is None else f"{self.mib} MiB"
        return f"{memory} of GPU memory held by {self.why} (pid {self.pid}); {self.remedy}"


def found(*, patience: float = NVIDIA_SMI_TIMEOUT_S) -> list[Orphan]:
    """Every orphan that nvidia-smi knows of; none where there is no such program, or it does not answer in time."""
    return list(among(smi(APPS, patience=patience)))


def among(apps: Sequence[Sequence[str]]) -> Iterator[Orphan]:
    """The orphans among lines of (pid, name, MiB)."""
    for pid, _, used in apps:
        if pid.isdigit() and (seen := _judged(int(pid))):
            yield Orphan(int(pid), int(used) if used.isdigit() else None, *seen)


def _judged(pid: int) -> tuple[str, str] | None:
    """Why a process is an orphan, and what frees its memory; None for any other. Only Linux tells."""
    if not PROC.exists():
        return None
    words = _command(pid)
    if words is None:
        frees = f"kill -9 {pid} where it runs frees it; if it runs nowhere, a restart of the machine"
        return "a process that is not seen from here: another container's, or dead", frees
    state, parent = _stat(pid)
    if "sweeper.worker" not in words or parent == _named_parent(words):
        return None
    if state == "D":
        return "a worker whose sweep is gone, and which hangs in the driver", "a restart of the machine frees it"
    return "a worker whose sweep is gone", f"kill -9 {pid} frees it"


def _command(pid: int) -> list[str] | None:
    """The words of its command line, none if they are another user's; None when there is no such process any more."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1] or None
    except (FileNotFoundError, ProcessLookupError):
        return None
    except PermissionError:
        return []


def _named_parent(words: Sequence[str]) -> int | None:
    """The coordinator that a worker's command line names."""
    following = words[words.index("--parent") + 1 :] if "--parent" in words else []
    return int(following[0]) if following and following[0].isdigit() else None


def _stat(pid: int) -> tuple[str, int | None]:
    """Its state, a letter, and its parent; that of a process that has just ended is X."""
    try:
        state, parent = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return "X", None
    return state, int(parent)


def smi(query: str, *, patience: float = 20.0) -> list[tuple[str, str, str]]:
    """The lines of three cells that nvidia-smi answers; none where it is not, or does not answer in time."""
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
