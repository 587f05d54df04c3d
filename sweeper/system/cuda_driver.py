"""Prints what CUDA's driver library knows about the GPUs as JSON; a script that imports nothing of ours.

    python cuda_driver.py ids|total|free

`ids` creates no context on any GPU. `free` has to, for a moment; call it for one GPU (CUDA_VISIBLE_DEVICES).
"""

import ctypes
import json
import sys
import uuid
from typing import Any

LIBRARY = "libcuda.so.1"
NO_GPU = (34, 100)  # CUDA_ERROR_STUB_LIBRARY, CUDA_ERROR_NO_DEVICE


class Uuid(ctypes.Structure):
    """CUuuid."""

    _fields_ = (("bytes", ctypes.c_ubyte * 16),)


def answer(what: str) -> dict[str, Any]:
    """Return {"gpus": [{"id", and "total" or "free" in bytes}], "fault": a message, empty if the driver works}."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return {"gpus": [], "fault": f"{LIBRARY} is missing"}
    if code := library.cuInit(0):
        return {"gpus": [], "fault": "" if code in NO_GPU else f"libcuda fails with code {code} (cuInit)"}
    try:
        return {"gpus": [_gpu(library, number, what) for number in range(_count(library))], "fault": ""}
    except OSError as error:
        return {"gpus": [], "fault": str(error)}


def _count(library: ctypes.CDLL) -> int:
    count = ctypes.c_int()
    _call(library, "cuDeviceGetCount", ctypes.byref(count))
    return count.value


def _gpu(library: ctypes.CDLL, number: int, what: str) -> dict[str, Any]:
    device = ctypes.c_int()
    _call(library, "cuDeviceGet", ctypes.byref(device), number)
    sizes = {"total": _total, "free": _free}
    return {"id": _id(library, device)} | ({what: sizes[what](library, device)} if what in sizes else {})


def _id(library: ctypes.CDLL, device: ctypes.c_int) -> str:
    """Return the id for CUDA_VISIBLE_DEVICES; for a MIG slice the newer call gives its own, the older its GPU's."""
    whole, own = Uuid(), Uuid()
    _call(library, "cuDeviceGetUuid", ctypes.byref(whole), device)
    _call(library, "cuDeviceGetUuid_v2", ctypes.byref(own), device)
    kind = "GPU" if bytes(whole.bytes) == bytes(own.bytes) else "MIG"
    return f"{kind}-{uuid.UUID(bytes=bytes(own.bytes))}"


def _total(library: ctypes.CDLL, device: ctypes.c_int) -> int:
    found = ctypes.c_size_t()
    _call(library, "cuDeviceTotalMem_v2", ctypes.byref(found), device)
    return found.value


def _free(library: ctypes.CDLL, device: ctypes.c_int) -> int:
    """Return the free bytes, less those that this process takes for the query."""
    context, free, total = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t()
    _call(library, "cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    _call(library, "cuCtxSetCurrent", context)
    _call(library, "cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    return free.value


def _call(library: ctypes.CDLL, name: str, *arguments: Any) -> None:
    if code := getattr(library, name)(*arguments):
        raise OSError(f"libcuda fails with code {code} ({name})")


if __name__ == "__main__":
    print(json.dumps(answer(sys.argv[1])))
