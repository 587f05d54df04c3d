"""The device of a section: a GPU, or a CPU that takes the GPU's paths. Only this module here calls CUDA."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from trainers.loading.image_store import DEVICE_IMAGES

GIB = 2**30


class Cpu:
    """A CPU in place of a GPU: there is nothing to wait for, and no device memory to count."""

    name = "cpu"
    cuda = False
    formats: tuple[str, ...] = ("fp32",)
    activity = ProfilerActivity.CPU

    @property
    def device(self) -> torch.device:
        """The torch device."""
        return torch.device(self.name)

    def wait(self) -> None:
        """Wait until the device has done everything that was launched."""

    def lag(self, milliseconds: int) -> None:
        """Keep the caller's stream busy with nothing for so long."""

    def used(self) -> float:
        """Return the memory that tensors occupy now, in MiB."""
        return 0.0

    def peaks(self) -> dict[str, float]:
        """Return the peaks of memory occupied by tensors, and reserved by torch, in GiB."""
        return {}

    def forget(self) -> None:
        """Free all memory that is no longer used, including images kept on the device."""
        DEVICE_IMAGES.clear()
        gc.collect()

    def pinned(self, count: int) -> Tensor:
        """Return `count` bytes of host memory, pinned if the device is a GPU."""
        return torch.empty(count, dtype=torch.uint8)

    @contextmanager
    def no_waits(self) -> Iterator[None]:
        """Make any wait for the device in this context raise RuntimeError."""
        yield

    @contextmanager
    def at_most(self, gib: float, images: int) -> Iterator[None]:
        """Limit this process to `gib` of GPU memory. On a CPU, networks refuse more than `images` at once."""
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
        """Return the total time of the device's kernels, by the profiler; 0 on a CPU, or if it reports nothing."""
        with profile(activities=[self.activity]) as seen:
            work()
            self.wait()
        events = [event for event in seen.key_averages() if "CUDA" in str(event.device_type)]
        return float(sum(event.self_device_time_total for event in events)) / 1000


class Gpu(Cpu):
    """The first GPU that CUDA lists."""

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
        torch.cuda._sleep(1_500_000 * milliseconds)  # type: ignore[no-untyped-call]  # cycles at about 1.5 GHz

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
    """Return the place with that name."""
    return Gpu() if device == "cuda" else Cpu()
