"""Device-specific behaviour: number formats, memory, and settings made once."""

import ctypes
import gc
import logging
import platform
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy as shallow_copy
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch._dynamo.exc import FailOnRecompileLimitHit

if TYPE_CHECKING:
    from trainers.config import TrainConfig

if platform.system() != "Windows":
    import resource

log = logging.getLogger(__name__)
Copied = TypeVar("Copied")

GRAPHS = 64  # per network: one for each input shape and each set of trainable layers
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
BF16 = ("avx512_bf16", "amx_bf16", "bf16")  # instructions of x86 and of Arm, as torch names them
SCARCE = 0.05  # share of a GPU's memory: with less free, a library that fails has probably run out of it
_NO_ROOM = re.compile(
    r"\b(CUDA|HIP|MPS|XPU)\b.*\bout of memory|cudaErrorMemoryAllocation|hipErrorOutOfMemory"
    r"|\b(CU|HIP|ROC)[A-Z]+_(STATUS_)?(ALLOC_FAILED|INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED)",
    re.IGNORECASE,
)
_PERHAPS_NO_ROOM = re.compile(
    r"\b(CU|HIP)(BLAS|BLASLT|DNN|SOLVER)_STATUS_(NOT_INITIALIZED|NOT_SUPPORTED|EXECUTION_FAILED)"
    r"|unable to find an engine|miopenStatusUnknownError",
    re.IGNORECASE,
)


def prepare(device: torch.device) -> None:
    """Configure the process for training on `device`: TF32 on a GPU where no other format applies, and memory that
    stays allocated on a CPU.
    """
    if device.type == "cpu":
        _keep_memory()
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]  # the next lines do not, and fail before it
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
        torch.cuda.reset_peak_memory_stats(device)


def _keep_memory() -> None:
    """Make glibc keep freed memory, which the next step needs again; what an earlier run left is given back.

    By default, each large array is mapped when it is created and unmapped when it is freed, and the kernel clears its
    pages one by one as they are touched. That takes a sixth to a third of the CPU time of small networks
    (docs/explanation/speed.md#epochs-and-trials).
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if all(hasattr(libc, name) for name in ("mallopt", "malloc_trim")):  # other C libraries have their own ways
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        libc.malloc_trim(0)


def use_threads(count: int) -> None:
    """Set the number of CPU threads that this process computes with from now on."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return `tensor` on `device`; to a GPU it goes through pinned memory, so that the host does not wait."""
    if device.type != "cuda":
        return tensor.to(device)
    pinned = tensor if tensor.is_pinned() else tensor.pin_memory()
    return pinned.to(device, non_blocking=True)  # the allocator keeps pinned memory until it has been read


def offload(value: Copied, device: torch.device) -> Callable[[], Copied]:
    """Start a copy of the tensors in `value`, as they are now, to host memory. The returned function, called from any
    thread, waits for the copy and returns it.

    A GPU copies into pinned memory on its own stream: the host does not wait, and the GPU's next work starts when
    the copy is done, because it changes what is copied.
    """
    if device.type != "cuda":
        found = _copied(value, lambda tensor: tensor.detach().to("cpu", copy=True))
        return lambda: found
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    training = torch.cuda.current_stream(device)
    stream.wait_stream(training)
    with torch.cuda.stream(stream):
        pinned = _copied(value, _pinned)
    training.wait_stream(stream)

    def copied() -> Copied:
        stream.synchronize()
        return pinned

    return copied


def _pinned(tensor: Tensor) -> Tensor:
    there = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda, requires_grad=False)
    return there.copy_(tensor.detach(), non_blocking=True)


def _copied(value: Copied, copy: Callable[[Tensor], Tensor]) -> Copied:
    """Return `value` with a copy of every tensor, in new dictionaries and lists."""
    found: Any = value
    if isinstance(value, Tensor):
        found = copy(value)
    elif isinstance(value, dict):
        found = shallow_copy(value)  # with the attributes that torch gives its dictionaries
        found.update((key, _copied(part, copy)) for key, part in value.items())
    elif isinstance(value, list):
        found = [_copied(part, copy) for part in value]
    same: Copied = found
    return same


def unsupported(capability: tuple[int, int], archs: Sequence[str]) -> str | None:
    """Return why a GPU of this compute capability cannot run code built for `archs`; None if it can.

    archs are from torch.cuda.get_arch_list(). sm_XY runs on chips with the same X and at least Y, but sm_XYa only on
    that exact chip and sm_XYf on its family; the driver compiles compute_XY for that chip and all later ones.
    """
    major, minor = capability
    for arch in archs:
        found = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", arch)
        if found is None:
            continue
        kind, special, built = found[1], found[4], (int(found[2]), int(found[3]))
        same = built == capability if special == "a" else built[0] == major and built[1] <= minor
        if same or (kind == "compute" and not special and built <= capability):
            return None
    return f"it has compute capability {major}.{minor}, but this torch is built for {', '.join(archs) or 'no GPU'}"


def release(*, pinned: bool = False) -> None:
    """Return the memory that a finished run left in the allocator to the GPU, for other processes that share it.

    pinned: also return the host's pinned memory, where batches and checkpoints went, to the system. A run that
    continues would have to pin it again.
    """
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        gc.collect()
        torch.cuda.empty_cache()
        if pinned and hasattr(torch._C, "_host_emptyCache"):  # there is no public function
            torch._C._host_emptyCache()


def no_room(error: BaseException) -> bool:
    """True if this error means that a GPU is out of memory.

    Not every lack of memory is torch's OutOfMemoryError: contexts, library handles, workspaces and pinned memory
    bypass torch's allocator, and each library has its own message. Some of these messages can also mean other faults:
    they count only if the GPU is nearly full.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error) if isinstance(error, RuntimeError) else ""
    return bool(_NO_ROOM.search(text)) or (bool(_PERHAPS_NO_ROOM.search(text)) and _nearly_full())


def _nearly_full() -> bool:
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    try:
        free, total = torch.cuda.mem_get_info()
    except RuntimeError as error:  # the GPU has failed and repeats its earlier error
        return bool(_NO_ROOM.search(str(error)))
    return free < SCARCE * total


def half_format(config: "TrainConfig", device: torch.device) -> torch.dtype | None:
    """Return the 16-bit format in which the network computes; None for full precision."""
    chosen = config.precision
    if _is_emulated(config, device):
        return None
    if chosen == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[chosen]


@cache
def has_bf16() -> bool:
    """True if this CPU has instructions for bfloat16; any other CPU emulates it, slower than fp32."""
    if hasattr(torch.cpu, "get_capabilities"):
        return any(torch.cpu.get_capabilities().get(name) for name in BF16)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # the only way in torch 2.9


def _is_emulated(config: "TrainConfig", device: torch.device) -> bool:
    return config.precision == "bf16" and device.type == "cpu" and not has_bf16()


def warn_of_emulation(config: "TrainConfig", device: torch.device) -> None:
    """Warn if training does not use the recipe's number format."""
    if _is_emulated(config, device):
        log.warning("precision: bf16 is only emulated on this CPU, slower than fp32: training in fp32 instead")


def autocast(config: "TrainConfig", device: torch.device) -> AbstractContextManager[None]:
    """Return the context of mixed precision for the recipe and the device."""
    dtype = half_format(config, device)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def in_full(module: nn.Module, x: Tensor) -> Tensor:
    """Apply `module` to `x` in float32 inside mixed precision: in 16 bits, close classes would tie."""
    precise = None if x.device.type == "meta" else torch.autocast(x.device.type, enabled=False)
    with precise or nullcontext():  # "meta" does not support autocast
        found: Tensor = module(x.float())
    return found


class Compiled:
    """A network compiled by torch.compile, with one graph per shape; the network itself stays as it is.

    If it would need more than GRAPHS graphs, it continues uncompiled and logs a warning.
    """

    def __init__(self, net: nn.Module) -> None:
        torch.compiler.reset()  # graphs of other trials in this process count against the limit
        torch._dynamo.config.recompile_limit = GRAPHS
        torch._dynamo.config.fail_on_recompile_limit_hit = True
        self._net, self._now = net, torch.compile(net, dynamic=False)

    def __call__(self, x: Tensor) -> Tensor:
        try:
            found: Tensor = self._now(x)
        except FailOnRecompileLimitHit:
            log.warning(
                "torch.compile has made %d graphs of this network, the limit: it continues uncompiled", GRAPHS
            )
            self._now = self._net
            found = self._net(x)
        return found


def scaler(config: "TrainConfig", device: torch.device) -> torch.amp.GradScaler:
    """Return a scaler that keeps the gradients of fp16 in range; it does nothing for other formats."""
    return torch.amp.GradScaler(device.type, enabled=half_format(config, device) is torch.float16)


def memory_gib(device: str) -> float | None:
    """Return the total memory of a GPU in GiB; None for other devices."""
    if not device.startswith("cuda"):
        return None
    return round(torch.cuda.get_device_properties(device).total_memory / 2**30, 1)


def peak_memory_gb(device: torch.device) -> float:
    """Return the peak memory so far in GiB: on a GPU what torch reserved, elsewhere the process's resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
