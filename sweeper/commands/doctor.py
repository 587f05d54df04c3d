"""`sweep doctor`: check the parts of this machine that a sweep needs. Loads no heavy library itself."""

import os
import platform
import shutil
import socket
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sweeper.errors import EnvironmentFault
from sweeper.store import paths
from sweeper.system import disks, gpu_processes
from sweeper.system.ask import ask
from sweeper.tracking import local_store

LIBRARIES = (
    "vision-sweep",
    "torch",
    "torchvision",
    "timm",
    "optuna",
    "mlflow",
    "pandas",
    "pillow",
    "pydantic",
    "numpy",
)
LOW_DISK = 5e9  # bytes
TORCH = """
import json, torch
from trainers.support.device import unsupported
from trainers.support.leaving import leave
cuda = torch.cuda.is_available()
name, capability, archs = torch.cuda.get_device_name, torch.cuda.get_device_capability, torch.cuda.get_arch_list()
found = [(name(i), capability(i)) for i in range(torch.cuda.device_count() if cuda else 0)]
print(json.dumps({
    "cuda": cuda, "threads": torch.get_num_threads(),
    "devices": [{"name": one, "capability": other, "fault": unsupported(other, archs)} for one, other in found],
}))
leave()
"""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check: its name, if it passed, what was found, and what to do if it failed."""

    name: str
    ok: bool
    text: str
    help: str = ""
    orphan: gpu_processes.Orphan | None = None  # the process, if it holds GPU memory unused


def examine(*, patience: float = 3.0) -> list[Finding]:
    """Return all findings in reading order; no check waits longer than `patience` seconds for the network."""
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _versions,
        devices,
        holders,
        _disk,
        lambda: iter([hub(patience)]),
        lambda: iter([mlflow(paths.database())]),
        _ray,
    )
    return [finding for look in looks for finding in look()]


def document(findings: list[Finding]) -> dict[str, Any]:
    """Return the findings as one JSON document, with the figures of orphaned GPU memory."""
    lost = [asdict(finding.orphan) for finding in findings if finding.orphan]
    words = [{"name": f.name, "ok": f.ok, "text": f.text, "help": f.help} for f in findings]
    return {"schema_version": 1, "ok": all(f.ok for f in findings), "findings": words, "orphans": lost}


def lines(findings: list[Finding]) -> Iterator[str]:
    """Yield the findings as text, with a remedy below each failed check."""
    for finding in findings:
        yield f"{'ok  ' if finding.ok else 'warn'}  {finding.name}: {finding.text}"
        if finding.help:
            yield f"      help: {finding.help}"


def _versions() -> Iterator[Finding]:
    yield Finding("python", sys.version_info >= (3, 11), f"{platform.python_version()} on {platform.platform()}")
    for name in LIBRARIES:
        try:
            yield Finding(name, True, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, False, "not installed", f"pip install {name}")


def devices() -> Iterator[Finding]:
    """Yield the devices that torch sees, from another process: importing torch is slow and may occupy a device."""
    try:
        seen = ask("-c", TORCH, what="torch", timeout=120, quiet=True)
    except EnvironmentFault:
        yield Finding("device", False, "torch does not start", "reinstall torch and torchvision together")
        return
    if not seen["cuda"]:
        help_ = "the NVIDIA driver is missing or too old" if shutil.which("nvidia-smi") else ""
        yield Finding("device", not help_, f"no GPU available; cpu with {seen['threads']} threads", help_)
    for index, device in enumerate(seen["devices"]):
        major, minor = device["capability"]
        said = device["fault"] or f"compute capability {major}.{minor}"
        help_ = "use a torch build that supports it, or another GPU with --devices" if device["fault"] else ""
        yield Finding(f"cuda:{index}", not help_, f"{device['name']}: {said}", help_)


def holders() -> Iterator[Finding]:
    """Yield the processes that hold GPU memory, as reported by nvidia-smi if it is installed."""
    for index, used, total in gpu_processes.smi("--query-gpu=index,memory.used,memory.total"):
        busy = float(used) > 0.2 * float(total) if used.isdigit() and total.isdigit() else False
        yield Finding(f"memory of GPU {index}", not busy, f"{used} of {total} MiB in use")
    apps = gpu_processes.smi(gpu_processes.APPS)
    lost = {str(one.pid): one for one in gpu_processes.among(apps)}
    for pid, name, used in apps:
        one = lost.get(pid)
        why, remedy = (f", {one.why}", one.remedy) if one else ("", "")
        yield Finding("held by", one is None, f"{name} (pid {pid}): {used} MiB{why}", remedy, one)


def _disk() -> Iterator[Finding]:
    home = paths.home()
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    help_ = "" if free > LOW_DISK else "remove old studies, or set SWEEP_HOME to another disk"
    yield Finding("disk", free > LOW_DISK, f"{free / 1e9:.1f} GB free at {home}", help_)
    if kind := disks.network(there):
        yield Finding("network", False, disks.words(home, kind), "set SWEEP_HOME to a folder on a local disk")
    writable = os.access(there, os.W_OK)
    if not writable:
        yield Finding("folder", False, f"{there} is not writable", "set SWEEP_HOME to a folder that you can write to")


def hub(patience: float) -> Finding:
    """Check that the model hub, or the proxy in front of it, accepts a connection. Sends no request."""
    ways_out = "without it, use local weights (weights: PATH), a filled HF cache, or pretrained: false"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return Finding("hub", True, "offline by choice (HF_HUB_OFFLINE)")
    from huggingface_hub import constants

    endpoint = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    address = urlsplit(proxy or endpoint)
    host, port = address.hostname or "", address.port or (80 if address.scheme == "http" else 443)
    trouble = _connect(host, port, patience)
    through = " through a proxy" if proxy else ""
    if trouble:
        return Finding("hub", False, f"{urlsplit(endpoint).hostname} is unreachable{through}: {trouble}", ways_out)
    return Finding("hub", True, f"{urlsplit(endpoint).hostname} is reachable{through}")


def _connect(host: str, port: int, patience: float) -> str:
    """Return why no connection was made in time, or "". Uses a thread, as resolving a name has no time limit."""
    trouble = [f"no answer in {patience:g} s"]

    def attempt() -> None:
        try:
            socket.create_connection((host, port), timeout=patience).close()
            trouble[0] = ""
        except OSError as error:
            trouble[0] = error.strerror or type(error).__name__

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(patience)
    return trouble[0]


def mlflow(database: Path) -> Finding:
    if trouble := local_store.trouble(database):
        return Finding("mlflow", False, *trouble)
    if not database.exists():
        return Finding("mlflow", True, f"no database yet; the first run creates {database}")
    count = "select count(*), count(case status when 'RUNNING' then 1 end) from runs"
    try:
        link = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=2)
        try:
            ((version,),) = link.execute("select version_num from alembic_version").fetchall()
            ((runs, running),) = link.execute(count)
        finally:
            link.close()
    except (sqlite3.Error, ValueError) as error:
        remedy = f"move {database} away; the next run creates a new one from the run folders"
        return Finding("mlflow", False, f"{database} cannot be read: {error}", remedy)
    return Finding("mlflow", True, f"{database}: {runs} runs, {running} running (schema {version})")


def _ray() -> Iterator[Finding]:
    there = util.find_spec("ray") is not None
    yield Finding("ray", True, metadata.version("ray") if there else "not installed; only needed for a cluster")
