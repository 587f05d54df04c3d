"""The slots that trials run on: which devices there are, found without torch."""

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

Count = int | Literal["auto"]  # of trials side by side on a device; auto: as many as fit and gain
MAX_SLOTS_PER_DEVICE = 8  # slots that auto opens on a device
DEV = Path("/dev")


@dataclass(frozen=True)
class Slot:
    """A place for one trial at a time."""

    name: str  # for people: cuda:0, cuda:1.0 (the first of several on one device), cpu
    device: str = "cpu"  # as the worker's torch names it
    threads: int = 1  # CPU threads the worker may use; with auto, those of a trial that has the device alone
    env: Mapping[str, str] = field(default_factory=dict)  # what the worker's environment has besides ours
    home: str = "cpu"  # name of the device, which other slots may share


@dataclass(frozen=True)
class _Device:
    name: str
    device: str
    env: Mapping[str, str] = field(default_factory=dict)


CPU = _Device("cpu", "cpu", {"CUDA_VISIBLE_DEVICES": ""})


def slots(devices: str | None = None, per_device: Count = 1) -> list[Slot]:
    """`per_device` slots on each of `devices`: all GPUs, else Apple's, else the CPU, when left out.

    `devices` is cpu, mps, or a list of the GPUs' numbers or ids such as `0,1`; numbers count the GPUs that are
    visible, as torch does. The host's cores are shared out. Raises UserError for a device that is not there,
    EnvironmentFault when the driver does not answer.
    """
    if per_device != "auto" and per_device < 1:
        raise UserError(f"{per_device} trials a device", help="at least 1, or auto")
    return _opened(_named(devices) if devices else _found(), per_device)


def assigned(gpus: Sequence[int | str], per_device: Count) -> list[Slot]:
    """Slots on the GPUs that a cluster assigned, by what CUDA_VISIBLE_DEVICES calls them; without any, on the CPU."""
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
    """On a CPU, more trials than cores cannot gain."""
    return MAX_SLOTS_PER_DEVICE if one.device.startswith("cuda") else min(MAX_SLOTS_PER_DEVICE, cores())


def ids(slots: Sequence[Slot]) -> list[str]:
    """Ids of the NVIDIA GPUs among them that one process may see together: all whole ones, or else one MIG slice."""
    found = list(dict.fromkeys(slot.env["CUDA_VISIBLE_DEVICES"] for slot in slots if slot.device.startswith("cuda")))
    return [one for one in found if not one.startswith("MIG-")] or found[:1]


def room(slots: Sequence[Slot]) -> dict[str, float | None]:
    """Free memory of each device in GiB, by name; None where nobody says."""
    homes = {slot.home: slot for slot in slots}
    return {
        home: _gpu_memory(one, "free") if one.device.startswith("cuda") else _memory() for home, one in homes.items()
    }


def smallest(slots: Sequence[Slot]) -> float | None:
    """Memory in all, in GiB, of the GPU among them that has the least; None where nobody says, or one is no GPU."""
    homes = {slot.home: slot for slot in slots}.values()
    found = [_gpu_memory(one, "total") if one.device.startswith("cuda") else None for one in homes]
    known = [one for one in found if one is not None]
    return min(known) if known and len(known) == len(found) else None


def _gpu_memory(slot: Slot, which: Literal["free", "total"]) -> float | None:
    """What nvidia-smi says, or else, as of MIG slices, CUDA's driver."""
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
    found = _asked_driver(which, slot.env["CUDA_VISIBLE_DEVICES"]).get("gpus")
    return found[0][which] / 2**30 if found else None


def _memory() -> float | None:
    """What new processes can have of the machine's memory, and of what its control group may take; of Linux."""
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
    """Bytes of a control group that hold files, such as images that were read, and are given back when needed."""
    found = re.search(r"^inactive_file (\d+)$", stat.read_text(), re.MULTILINE) if stat.exists() else None
    return int(found[1]) if found else 0


def cores() -> int:
    """CPU cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpus() -> list[str]:
    """Ids of the NVIDIA GPUs (or MIG slices) that may be used: those of CUDA_VISIBLE_DEVICES, or all."""
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
        raise EnvironmentFault(
            "nvidia-smi does not answer", help="mend the driver, or choose --devices cpu"
        ) from None
    if "No devices" in asked.stdout + asked.stderr:
        return []
    if asked.returncode:
        said = (asked.stdout + asked.stderr).strip().splitlines() or [f"exit code {asked.returncode}"]
        raise EnvironmentFault(f"nvidia-smi: {said[0]}", help="mend the driver, or choose --devices cpu")
    return _ids(asked.stdout)


def _unlisted() -> list[str]:
    """The ids that CUDA's driver knows, for machines without nvidia-smi: many containers, WSL."""
    if sys.platform != "linux":
        return []
    answer = _asked_driver("ids")
    if not answer["gpus"] and (there := sorted(DEV.glob("nvidia[0-9]*"))):
        said = answer["fault"] or "libcuda finds no GPU"
        what = f"{there[0]} says that there is a GPU; nvidia-smi is not on PATH, and {said}"
        raise EnvironmentFault(what, help="give this machine the driver's libraries, or choose --devices cpu")
    return [one["id"] for one in answer["gpus"]]


def _asked_driver(what: str, visible: str | None = None) -> dict[str, Any]:
    """What `driver.py` answers, in a process of its own: a driver may hang, and this process stays free of CUDA."""
    shown = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    env = {**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", **shown}
    words = ("-I", "-S", cuda_driver.__file__, what)  # it needs nothing on its path
    try:
        answer: dict[str, Any] = ask(*words, what="libcuda", env=env, timeout=60, quiet=True)
    except EnvironmentFault as error:
        return {"gpus": [], "fault": error.what}
    return answer


def _ids(listing: str) -> list[str]:
    """The ids in what `nvidia-smi -L` prints; a GPU that is cut into MIG slices counts as its slices."""
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
            raise UserError(f"no device {word!r}", where="--devices", help=f"there are: {', '.join(there)}")
    if not words:
        raise UserError("no device named", where="--devices", help="such as --devices 0,1 or --devices cpu")
    return [known[word] for word in dict.fromkeys(words)]


def _cuda(index: int, one: str) -> _Device:
    return _Device(f"cuda:{index}", "cuda:0", {"CUDA_VISIBLE_DEVICES": one})


def _apple() -> bool:
    return sys.platform == "darwin" and platform.machine() == "arm64"


def _name(one: _Device, share: int, per_device: int) -> str:
    if per_device == 1:
        return one.name
    return f"{one.name}.{share}" if ":" in one.name else f"{one.name}:{share}"
