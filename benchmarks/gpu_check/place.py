"""Where a section runs: a GPU, or a CPU that takes the GPU's way with small networks. Nothing else here asks CUDA."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from trainers.loading.image_store import DEVICE_IMAGES

GIB = 2**30


class Cpu:
    """Does on a CPU what it can: there is nothing to wait for, and no memory to count."""

    name = "cpu"
    cuda = False
    formats: tuple[str, ...] = ("fp32",)
    activity = ProfilerActivity.CPU

    @property
    def device(self) -> torch.device:
        """As torch takes it."""
        return torch.device(self.name)

    def wait(self) -> None:
        """Until everything that was asked of the device is done."""

    def lag(self, milliseconds: int) -> None:
        """Have the caller's stream do nothing for so long."""

    def used(self) -> float:
        """Memory that tensors fill now, MiB."""
        return 0.0

    def peaks(self) -> dict[str, float]:
        """The most that tensors filled, and that torch took, GiB."""
        return {}

    def forget(self) -> None:
        """Let go of all that is no longer used, kept images included."""
        DEVICE_IMAGES.clear()
        gc.collect()

    def pinned(self, count: int) -> Tensor:
        """So many bytes of the host's from which copies run by themselves."""
        return torch.empty(count, dtype=torch.uint8)

    @contextmanager
    def no_waits(self) -> Iterator[None]:
        """What waits for the device here raises RuntimeError."""
        yield

    @contextmanager
    def at_most(self, gib: float, images: int) -> Iterator[None]:
        """A GPU gives this process `gib` in all; on a CPU networks refuse more than so many images at once."""
        del gib

        def refuse(_: nn.Module, given: tuple[object, ...]) -> None:
            if given and isinstance(given[0], Tensor) and len(given[0]) > images:
                raise torch.OutOfMemoryError(f"no room for {len(given[0])} images")

        hook = nn.modules.module.register_module_forward_pre_hook(refuse)
        try:
            yield
        finally:
            hook.remove()

    def busy_ms(self, work: Callable[[], object]) -> float:
        """Time that the device's kernels take together, from the profiler; 0 on a CPU, and where it tells nothing."""
        with profile(activities=[self.activity]) as seen:
            work()
            self.wait()
        events = [event for event in seen.key_averages() if "CUDA" in str(event.device_type)]
        return float(sum(event.self_device_time_total for event in events)) / 1000


class Gpu(Cpu):
    """The first GPU that CUDA shows."""

    name = "cuda"
    cuda = True
    formats = ("bf16", "fp16", "fp32")
    activity = ProfilerActivity.CUDA

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", 0)

    def wait(self) -> None:
        torch.cuda.synchronize()

    def lag(self, milliseconds: int) -> None:
        torch.cuda._sleep(1_500_000 * milliseconds)  # type: ignore[no-untyped-call]  # ticks of a clock of some GHz

    def used(self) -> float:
        return torch.cuda.memory_allocated() / 2**20

    def peaks(self) -> dict[str, float]:
        most = {"peak_gib": torch.cuda.max_memory_allocated(), "reserved_gib": torch.cuda.max_memory_reserved()}
        return {name: round(count / GIB, 2) for name, count in most.items()}

    def forget(self) -> None:
        super().forget()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def pinned(self, count: int) -> Tensor:
        return torch.empty(count, dtype=torch.uint8, pin_memory=True)

    @contextmanager
    def no_waits(self) -> Iterator[None]:
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")

    @contextmanager
    def at_most(self, gib: float, images: int) -> Iterator[None]:
        del images
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, gib * GIB / total))
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)


def place(device: str) -> Cpu:
    """The one with that name."""
    return Gpu() if device == "cuda" else Cpu()
