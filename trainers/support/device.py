"""What differs between devices: number formats, memory, and settings made once."""

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

GRAPHS = 64  # of one network, one for each shape of its input and each set of layers that learn
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
BF16 = ("avx512_bf16", "amx_bf16", "bf16")  # instructions of x86 and of Arm, as torch names them
SCARCE = 0.05  # of a GPU's memory: where less is free, a library that fails has probably found none
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
    """Settings of the process that training on `device` wants: TF32 where there is no other format, memory that stays
    on a CPU.
    """
    if device.type == "cpu":
        _keep_memory()
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]  # the next lines do not, and fail before it
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
        torch.cuda.reset_peak_memory_stats(device)


def _keep_memory() -> None:
    """Have glibc keep what is freed, for the next step takes it again; what an earlier run has left is given back.

    By default each large array is mapped when it is made and unmapped when it is freed, and the kernel blanks its
    pages one by one as they are touched: a sixth to a third of the CPU time of small networks
    (docs/explanation/measurements.md).
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if all(hasattr(libc, name) for name in ("mallopt", "malloc_trim")):  # other C libraries have their own ways
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        libc.malloc_trim(0)


def use_threads(count: int) -> None:
    """How many CPU threads this process computes with from now on."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`; to a GPU through pinned memory, for a copy from any other makes the host wait."""
    if device.type != "cuda":
        return tensor.to(device)
    pinned = tensor if tensor.is_pinned() else tensor.pin_memory()
    return pinned.to(device, non_blocking=True)  # the allocator keeps pinned memory until it has been read


def offload(value: Copied, device: torch.device) -> Callable[[], Copied]:
    """Begin a copy of the tensors in `value` as they are now, in the host's memory; a call of what comes back, from
    any thread, waits for it and returns it.

    A GPU copies into pinned memory on a stream of its own: the host does not wait, and what the GPU is given next
    begins when the copy is done, for it changes what is copied.
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
    """`value` with a copy of every tensor in its dictionaries and lists, and these new."""
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
    """Why a GPU of this compute capability cannot run code built for `archs`; None where it can.

    archs as torch.cuda.get_arch_list() gives them. sm_XY runs on chips of the same X and of at least Y, but sm_XYa on
    that very chip and sm_XYf on its family; of compute_XY the driver makes code for that chip and all later ones.
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
    return f"it has compute capability {major}.{minor}, and this torch is built for {', '.join(archs) or 'no GPU'}"


def release() -> None:
    """Give the memory that a finished run left in the allocator back to the GPU, for whoever shares it."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        gc.collect()
        torch.cuda.empty_cache()


def no_room(error: BaseException) -> bool:
    """Whether a GPU says by this error that it has no memory left.

    Not every want of memory is torch's OutOfMemoryError: contexts, library handles, workspaces and pinned memory are
    taken past torch's allocator, and each library has its own words. Some of these mean other faults as well: they
    count only where the GPU is nearly full.
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
    except RuntimeError as error:  # of a GPU that has failed, whose answer is the error before
        return bool(_NO_ROOM.search(str(error)))
    return free < SCARCE * total


def half_format(config: "TrainConfig", device: torch.device) -> torch.dtype | None:
    """The 16-bit format in which the network computes; None for full precision."""
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
    """Whether this CPU has instructions for bfloat16; any other one emulates it, slower than fp32."""
    if hasattr(torch.cpu, "get_capabilities"):
        return any(torch.cpu.get_capabilities().get(name) for name in BF16)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # torch 2.9 has no other way


def _is_emulated(config: "TrainConfig", device: torch.device) -> bool:
    return config.precision == "bf16" and device.type == "cpu" and not has_bf16()


def warn_of_emulation(config: "TrainConfig", device: torch.device) -> None:
    """Say where the recipe's number format is not the one that trains."""
    if _is_emulated(config, device):
        log.warning(
            "precision: bf16 would be slower than fp32 on this CPU, which only emulates it: it trains in fp32"
        )


def autocast(config: "TrainConfig", device: torch.device) -> AbstractContextManager[None]:
    """Mixed precision as the recipe and the device have it."""
    dtype = half_format(config, device)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def in_full(module: nn.Module, x: Tensor) -> Tensor:
    """`module` of `x` in float32 in the midst of mixed precision: 16 bits would tie classes that are close."""
    precise = None if x.device.type == "meta" else torch.autocast(x.device.type, enabled=False)
    with precise or nullcontext():  # "meta" knows no autocast
        found: Tensor = module(x.float())
    return found


class Compiled:
    """A network as torch.compile makes it, one graph a shape; the network itself stays as it is.

    Where it would take more than GRAPHS graphs, the network goes on uncompiled, and says so.
    """

    def __init__(self, net: nn.Module) -> None:
        torch.compiler.reset()  # what other trials of this process compiled counts against the limit
        torch._dynamo.config.recompile_limit = GRAPHS
        torch._dynamo.config.fail_on_recompile_limit_hit = True
        self._net, self._now = net, torch.compile(net, dynamic=False)

    def __call__(self, x: Tensor) -> Tensor:
        try:
            found: Tensor = self._now(x)
        except FailOnRecompileLimitHit:
            log.warning(
                "torch.compile has made %d graphs of this network, its limit: it continues uncompiled", GRAPHS
            )
            self._now = self._net
            found = self._net(x)
        return found


def scaler(config: "TrainConfig", device: torch.device) -> torch.amp.GradScaler:
    """Keeps the gradients of fp16 in range; does nothing for other formats."""
    return torch.amp.GradScaler(device.type, enabled=half_format(config, device) is torch.float16)


def memory_gib(device: str) -> float | None:
    """Memory in all of a GPU, GiB; None of anything else."""
    if not device.startswith("cuda"):
        return None
    return round(torch.cuda.get_device_properties(device).total_memory / 2**30, 1)


def peak_memory_gb(device: torch.device) -> float:
    """Peak memory so far, GiB: of a GPU what torch took, used or not; elsewhere resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
