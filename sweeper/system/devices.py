"""The slots that trials run on, and the devices behind them, found without torch."""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from sweeper.errors import EnvironmentFault, UserError
from sweeper.system import cuda_driver
from sweeper.system.ask import ask

Count = int | Literal["auto"]  # trials side by side on a device; auto: as many as fit and raise throughput
MAX_SLOTS_PER_DEVICE = 8  # slots that auto opens on a device
DEV = Path("/dev")


@dataclass(frozen=True)
class Slot:
    """A place for one trial at a time."""

    name: str  # as shown to users: cuda:0, cuda:1.0 (the first of several on one device), cpu
    device: str = "cpu"  # the name in the worker's torch
    threads: int = 1  # CPU threads the worker may use; with auto, those of a trial alone on the device
    env: Mapping[str, str] = field(default_factory=dict)  # variables added to the worker's environment
    home: str = "cpu"  # name of the device, which other slots may share


@dataclass(frozen=True)
class _Device:
    name: str
    device: str
    env: Mapping[str, str] = field(default_factory=dict)


CPU = _Device("cpu", "cpu", {"CUDA_VISIBLE_DEVICES": ""})


def slots(devices: str | None = None, per_device: Count = 1) -> list[Slot]:
    """Return `per_device` slots on each of `devices`; by default on all NVIDIA GPUs, else Apple's, else the CPU.

    `devices` is cpu, mps, or a list of GPU numbers or ids such as `0,1`; numbers count the visible GPUs, as in torch.
    The host's cores are divided among the slots. Raises UserError for a device that does not exist, EnvironmentFault
    if the driver does not answer.
    """
    if per_device != "auto" and per_device < 1:
        raise UserError(f"{per_device} trials per device", help="at least 1, or auto")
    return _opened(_named(devices) if devices else _found(), per_device)


def assigned(gpus: Sequence[int | str], per_device: Count) -> list[Slot]:
    """Return slots on the GPUs that a cluster assigned, named as in CUDA_VISIBLE_DEVICES; without any, on the CPU."""
    return _opened([_cuda(index, str(one)) for index, one in enumerate(gpus)] or [CPU], per_device)


def _opened(chosen: Sequence[_Device], per_device: Count) -> list[Slot]:
    many = {one.name: _most(one) if per_device == "auto" else per_device for one in chosen}
    threads = max(1, cores() // (len(chosen) if per_device == "auto" else sum(many.values())))
    return [
        Slot(_name(one, share, many[one.name]), one.device, threads, one.env, one.name)
        for one in chosen
        for share in range(many[one.name])
    ]


def _most(one: _Device) -> int:
    """Return the slots that auto opens; on a CPU at most one per core, since more cannot be faster."""
    return MAX_SLOTS_PER_DEVICE if one.device.startswith("cuda") else min(MAX_SLOTS_PER_DEVICE, cores())


def ids(slots: Sequence[Slot]) -> list[str]:
    """Return the ids of the slots' NVIDIA GPUs that one process can see: all whole GPUs, else one MIG slice."""
    found = list(dict.fromkeys(slot.env["CUDA_VISIBLE_DEVICES"] for slot in slots if slot.device.startswith("cuda")))
    return [one for one in found if not one.startswith("MIG-")] or found[:1]


def room(slots: Sequence[Slot]) -> dict[str, float | None]:
    """Return the free memory in GiB of each device, by name; None where it is unknown."""
    homes = {slot.home: slot for slot in slots}
    return {
        home: _gpu_memory(one, "free") if one.device.startswith("cuda") else _memory() for home, one in homes.items()
    }


def smallest(slots: Sequence[Slot]) -> float | None:
    """Return the total memory in GiB of the smallest GPU; None if any is unknown, or any slot is not on a GPU."""
    homes = {slot.home: slot for slot in slots}.values()
    found = [_gpu_memory(one, "total") if one.device.startswith("cuda") else None for one in homes]
    known = [one for one in found if one is not None]
    return min(known) if known and len(known) == len(found) else None


def _gpu_memory(slot: Slot, which: Literal["free", "total"]) -> float | None:
    """Return the memory in GiB by nvidia-smi, or by CUDA's driver where that gives none, as for MIG slices."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return _driver_memory(slot, which)
    query = [
        f"--query-gpu=memory.{which}",
        "--format=csv,noheader,nounits",
        f"--id={slot.env['CUDA_VISIBLE_DEVICES']}",
    ]
    try:
        asked = subprocess.run([program, *query], capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return None
    found = asked.stdout.strip()
    return int(found) / 1024 if found.isdigit() else _driver_memory(slot, which)


def _driver_memory(slot: Slot, which: Literal["free", "total"]) -> float | None:
    found = _query_driver(which, slot.env["CUDA_VISIBLE_DEVICES"]).get("gpus")
    return found[0][which] / 2**30 if found else None


def _memory() -> float | None:
    """Return the GiB that new processes can still take, within the control group's limit; None except on Linux."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except FileNotFoundError:
        return None
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    group = [Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current")]
    limit, used = (path.read_text().strip() if path.exists() else "" for path in group)
    if limit.isdigit() and used.isdigit():
        free = min(free, int(limit) - int(used) + _reclaimable(group[0].with_name("memory.stat")))
    return free / 2**30


def _reclaimable(stat: Path) -> int:
    """Return the bytes of a control group's file cache, such as images once read, which are freed when needed."""
    found = re.search(r"^inactive_file (\d+)$", stat.read_text(), re.MULTILINE) if stat.exists() else None
    return int(found[1]) if found else 0


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpus() -> list[str]:
    """Return the ids of the usable NVIDIA GPUs or MIG slices: those of CUDA_VISIBLE_DEVICES if set, else all."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        ids = [part.strip() for part in visible.split(",")]
        return [] if {"-1", "NoDevFiles"} & set(ids) else [part for part in ids if part]
    return _listed()


def _listed() -> list[str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return _unlisted()
    try:
        asked = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        raise EnvironmentFault("nvidia-smi does not answer", help="repair the driver, or use --devices cpu") from None
    if "No devices" in asked.stdout + asked.stderr:
        return []
    if asked.returncode:
        said = (asked.stdout + asked.stderr).strip().splitlines() or [f"exit code {asked.returncode}"]
        raise EnvironmentFault(f"nvidia-smi: {said[0]}", help="repair the driver, or use --devices cpu")
    return _ids(asked.stdout)


def _unlisted() -> list[str]:
    """Return the ids known to CUDA's driver, for machines without nvidia-smi: many containers, WSL."""
    if sys.platform != "linux":
        return []
    answer = _query_driver("ids")
    if not answer["gpus"] and (there := sorted(DEV.glob("nvidia[0-9]*"))):
        said = answer["fault"] or "libcuda finds no GPU"
        what = f"{there[0]} shows that there is a GPU, but nvidia-smi is not on PATH, and {said}"
        raise EnvironmentFault(what, help="install the driver's libraries on this machine, or use --devices cpu")
    return [one["id"] for one in answer["gpus"]]


def _query_driver(what: str, visible: str | None = None) -> dict[str, Any]:
    """Run `cuda_driver.py` in a separate process, since a driver may hang and CUDA must stay out of this one."""
    shown = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    env = {**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", **shown}
    words = ("-I", "-S", cuda_driver.__file__, what)  # it needs nothing on its path
    try:
        answer: dict[str, Any] = ask(*words, what="libcuda", env=env, timeout=60, quiet=True)
    except EnvironmentFault as error:
        return {"gpus": [], "fault": error.what}
    return answer


def _ids(listing: str) -> list[str]:
    """Return the ids that `nvidia-smi -L` lists; a GPU cut into MIG slices counts as its slices."""
    ids = re.findall(r"\(UUID: ((?:GPU|MIG)-[^)\s]+)\)", listing)
    cut = {gpu for gpu, following in pairwise(ids) if following.startswith("MIG-")}
    return [one for one in ids if one.startswith("MIG-") or one not in cut]


def _found() -> list[_Device]:
    if ids := gpus():
        return [_cuda(index, one) for index, one in enumerate(ids)]
    return [_Device("mps", "mps")] if _apple() else [CPU]


def _named(devices: str) -> list[_Device]:
    words = [word.strip().removeprefix("cuda:") for word in devices.split(",") if word.strip()]
    if words == ["cpu"]:
        return [CPU]
    if words == ["mps"] and _apple():
        return [_Device("mps", "mps")]
    ids = gpus()
    known = {str(index): _cuda(index, one) for index, one in enumerate(ids)}
    known |= {one: _cuda(index, one) for index, one in enumerate(ids) if not one.isdigit()}  # digits are no id
    for word in words:
        if word not in known:
            there = [f"{index}" for index in range(len(ids))] + ["mps"] * _apple() + ["cpu"]
            raise UserError(f"there is no device {word!r}", help=f"available: {', '.join(there)}")
    if not words:
        raise UserError("no device is given", help="write cpu, or numbers of GPUs such as 0,1")
    return [known[word] for word in dict.fromkeys(words)]


def _cuda(index: int, one: str) -> _Device:
    return _Device(f"cuda:{index}", "cuda:0", {"CUDA_VISIBLE_DEVICES": one})


def _apple() -> bool:
    return sys.platform == "darwin" and platform.machine() == "arm64"


def _name(one: _Device, share: int, per_device: int) -> str:
    if per_device == 1:
        return one.name
    return f"{one.name}.{share}" if ":" in one.name else f"{one.name}:{share}"
