import platform
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from trainers.config import TrainConfig
from trainers.support import device
from trainers.support.device import no_room, offload, peak_memory_gb, unsupported

WHEEL = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (8, 9), (9, 0), (10, 0), (12, 1)])
def test_code_runs_on_its_own_chip_and_on_later_ones_of_its_major_version(capability):
    assert unsupported(capability, WHEEL) is None


def test_a_chip_older_than_all_that_was_built_for_is_named_with_what_was():
    said = unsupported((6, 0), WHEEL)
    assert "6.0" in said
    assert all(arch in said for arch in WHEEL)


@pytest.mark.parametrize("capability", [(7, 0), (11, 0)])
def test_code_of_another_major_version_does_not_run(capability):
    assert unsupported(capability, WHEEL) is not None


def test_code_that_the_driver_compiles_runs_on_later_chips_only():
    assert unsupported((13, 0), [*WHEEL, "compute_120"]) is None
    assert unsupported((6, 1), [*WHEEL, "compute_120"]) is not None


def test_code_for_one_chip_alone_runs_on_no_other():
    assert unsupported((9, 0), ["sm_90a"]) is None
    assert unsupported((9, 1), ["sm_90a"]) is not None
    assert unsupported((10, 3), ["sm_100f"]) is None
    assert unsupported((9, 0), ["compute_80a"]) is not None


def test_a_torch_without_gpu_code_runs_on_none():
    assert "no GPU" in unsupported((9, 0), [])


def test_the_memory_that_is_told_of_a_gpu_is_what_others_do_without(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _: 3 * 2**30)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 2 * 2**30)
    assert peak_memory_gb(torch.device("cuda", 0)) == 3.0


@pytest.fixture
def emptied(monkeypatch):
    """Have torch see a GPU, and return the caches that are emptied."""
    found = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: found.append("device"))
    monkeypatch.setattr(torch._C, "_host_emptyCache", lambda: found.append("host"), raising=False)
    return found


def test_pinned_memory_is_given_back_between_runs_and_not_within_one(emptied):
    device.release()
    assert emptied == ["device"]
    device.release(pinned=True)
    assert emptied == ["device", "device", "host"]


def test_a_torch_that_cannot_give_pinned_memory_back_keeps_it(emptied, monkeypatch):
    monkeypatch.delattr(torch._C, "_host_emptyCache")
    device.release(pinned=True)
    assert emptied == ["device"]


def test_a_process_that_used_no_gpu_has_nothing_to_give_back(emptied, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    device.release(pinned=True)
    assert emptied == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_pinned_memory_that_a_run_left_goes_back_to_the_system():
    torch.cuda.init()
    torch.empty(2**26, pin_memory=True)
    before = torch.cuda.host_memory_stats()["allocated_bytes.current"]
    device.release(pinned=True)
    assert torch.cuda.host_memory_stats()["allocated_bytes.current"] <= before - 2**28


# ------------------------------------------------------------------------------------ no room on a GPU
NO_ROOM = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("HIP error: out of memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.01 GB, other allocations: 1.00 GB)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLASLT_STATUS_ALLOC_FAILED"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
]
PERHAPS = [
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. You may have passed in a non-contiguous input."),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
]
OTHERS = [
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (8x512 and 256x3)"),
    ValueError("the text of a label: CUDA out of memory"),
    MemoryError("CUDA"),
    KeyboardInterrupt(),
]


@pytest.fixture
def free(monkeypatch):
    """Have torch see a GPU of 100 bytes of which so many are free."""

    def set_(count):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (count, 100))

    return set_


@pytest.mark.parametrize("error", NO_ROOM, ids=str)
def test_every_library_has_its_own_words_for_want_of_memory(error):
    assert no_room(error)


@pytest.mark.parametrize("error", PERHAPS, ids=str)
def test_words_that_mean_other_faults_too_count_on_a_gpu_that_is_nearly_full(error, free):
    assert not no_room(error), "without a GPU"
    free(4)
    assert no_room(error)
    free(6)
    assert not no_room(error)


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_other_errors_are_no_want_of_memory_even_on_a_full_gpu(error, free):
    free(0)
    assert not no_room(error)


@pytest.mark.parametrize(("said", "room"), [("out of memory", False), ("an illegal memory access", True)])
def test_a_gpu_that_can_no_longer_be_asked_answers_by_its_error(said, room, free, monkeypatch):
    def broken():
        raise torch.AcceleratorError(f"CUDA error: {said}")

    free(0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", broken)
    assert no_room(PERHAPS[0]) is not room


FAULTS = """
import resource, torch
from trainers.support import device

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(16, 2**20).add_(1).sum()  # 64 MiB, made and freed
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
plain = faults()
device.prepare(torch.device("cpu"))
faults()
print(plain, faults())
"""


@pytest.mark.process
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own way of mapping large arrays")
def test_memory_that_a_step_has_freed_is_used_again_without_asking_the_kernel():
    plain, kept = map(int, subprocess.check_output([sys.executable, "-c", FAULTS], text=True).split())
    assert kept < plain / 20


# ------------------------------------------------------------------------------------------ number formats
@pytest.mark.skipif(platform.system() != "Linux", reason="reads the kernel's list of instructions")
def test_a_cpu_has_bf16_where_the_kernel_lists_its_instructions():
    listed = re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    assert device.has_bf16() == bool(listed)


@pytest.mark.parametrize(
    ("precision", "there", "found"),
    [
        ("bf16", True, torch.bfloat16),
        ("bf16", False, None),
        ("auto", True, None),
        ("auto", False, None),
        ("fp32", True, None),
    ],
)
def test_a_cpu_computes_in_bf16_where_it_has_it_and_the_recipe_says_so(monkeypatch, caplog, precision, there, found):
    monkeypatch.setattr(device, "has_bf16", lambda: there)
    config = TrainConfig(backbone="resnet18", precision=precision)
    assert device.half_format(config, torch.device("cpu")) == found
    device.warn_of_emulation(config, torch.device("cpu"))
    assert [one.message for one in caplog.records] == [
        "precision: bf16 is only emulated on this CPU, slower than fp32: training in fp32 instead"
    ] * (precision == "bf16" and not there)


def test_what_the_cpu_has_decides_nothing_on_another_device(monkeypatch):
    monkeypatch.setattr(device, "has_bf16", lambda: False)
    config = TrainConfig(backbone="resnet18", precision="bf16")
    assert device.half_format(config, torch.device("meta")) == torch.bfloat16


# ------------------------------------------------------------------------------------------- copies for checkpoints
def state():
    """As torch's own are: dictionaries in dictionaries and lists, tensors that learn, plain values."""
    net = torch.nn.BatchNorm1d(2)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.randn(4, 2)).sum().backward()
    optimizer.step()
    return net, {"network": net.state_dict(), "optimizer": optimizer.state_dict(), "none": None, "words": ["a"]}


def test_what_is_copied_for_a_checkpoint_stays_as_it_was():
    net, value = state()
    copied = offload(value, torch.device("cpu"))
    before = net.weight.detach().clone()
    with torch.no_grad():
        net.weight.add_(1)
    assert torch.equal(copied()["network"]["weight"], before)
    assert copied()["network"]["num_batches_tracked"] == 1
    assert copied()["network"]._metadata == value["network"]._metadata
    moments = copied()["optimizer"]["state"][0]["exp_avg"], value["optimizer"]["state"][0]["exp_avg"]
    assert torch.equal(*moments)
    assert moments[0].data_ptr() != moments[1].data_ptr()
    assert copied()["optimizer"]["param_groups"] == value["optimizer"]["param_groups"]
    assert (copied()["none"], copied()["words"]) == (None, ["a"])


def test_a_gpu_copies_on_a_stream_of_its_own_and_changes_nothing_before_that_is_done(monkeypatch):
    """There is no GPU here: its streams say in which order they are asked, and the tensors lie on the host."""
    order = []

    class Stream:
        def __init__(self, name):
            self.name = name

        def wait_stream(self, other):
            order.append(f"{self.name} waits for {other.name}")

        def synchronize(self):
            order.append(f"the writer waits for {self.name}")

    @contextmanager
    def on(stream):
        order.append(f"copy on {stream.name}")
        yield

    monkeypatch.setattr(torch.cuda, "Stream", lambda _device: Stream("side"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: Stream("training"))
    monkeypatch.setattr(torch.cuda, "stream", on)
    _, value = state()
    copied = offload(value, torch.device("cuda"))
    assert order == ["side waits for training", "copy on side", "training waits for side"]
    assert torch.equal(copied()["network"]["weight"], value["network"]["weight"])
    assert order[-1] == "the writer waits for side"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_copy_off_a_gpu_is_of_the_moment_when_it_was_asked_for():
    device = torch.device("cuda", 0)
    weights = torch.ones(2**26, device=device)
    copied = offload({"weights": weights}, device)
    for _ in range(10):
        weights.add_(1)
    assert copied()["weights"].is_pinned()
    assert copied()["weights"].eq(1).all()
