"""Which slots there are, on machines with and without GPUs. The driver's listing is a script that prints one."""

import shutil
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import pytest

from sweeper.errors import EnvironmentFault, UserError
from sweeper.system import devices
from sweeper.system.devices import Slot, slots

TWO = """\
GPU 0: NVIDIA A40 (UUID: GPU-aaaa)
GPU 1: NVIDIA A40 (UUID: GPU-bbbb)
"""
CUT = """\
GPU 0: NVIDIA H200 (UUID: GPU-aaaa)
  MIG 1g.18gb     Device  0: (UUID: MIG-1111)
  MIG 1g.18gb     Device  1: (UUID: MIG-2222)
GPU 1: NVIDIA H200 (UUID: GPU-bbbb)
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes this a machine whose nvidia-smi prints a text; None for one without it."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")

    def make(listing: str | None, code: int = 0) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        if listing is not None:
            program = folder / "nvidia-smi"
            program.write_text(f"#!/bin/sh\n/bin/cat <<'END'\n{listing}END\nexit {code}\n")
            program.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))

    return make


@pytest.mark.process
def test_without_a_gpu_there_is_one_slot_with_all_cores(machine):
    machine(None)
    (slot,) = slots()
    assert (slot.name, slot.device, slot.threads) == ("cpu", "cpu", devices.cores())
    assert slot.env == {"CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.process
def test_every_gpu_is_a_slot_that_sees_itself_alone(machine):
    machine(TWO)
    assert [(slot.name, slot.device, slot.env["CUDA_VISIBLE_DEVICES"]) for slot in slots()] == [
        ("cuda:0", "cuda:0", "GPU-aaaa"),
        ("cuda:1", "cuda:0", "GPU-bbbb"),
    ]


@pytest.mark.process
def test_the_smallest_gpu_is_the_one_of_which_nvidia_smi_says_the_least(machine):
    machine("24564\n")
    one, two = (Slot(name, "cuda:0", env={"CUDA_VISIBLE_DEVICES": f"GPU-{name}"}, home=name) for name in "ab")
    assert devices.smallest([one, one, two]) == 24564 / 1024
    assert devices.smallest([one, Slot("cpu")]) is None
    assert devices.smallest([]) is None


@pytest.mark.process
def test_a_gpu_of_which_nvidia_smi_says_nothing_has_no_known_size(machine):
    machine("[N/A]\n")
    assert devices.smallest([Slot("a", "cuda:0", env={"CUDA_VISIBLE_DEVICES": "MIG-a"}, home="a")]) is None


@pytest.mark.process
def test_a_gpu_in_slices_counts_as_its_slices(machine):
    machine(CUT)
    assert [slot.env["CUDA_VISIBLE_DEVICES"] for slot in slots()] == ["MIG-1111", "MIG-2222", "GPU-bbbb"]


def test_what_the_environment_hides_is_not_used(machine, monkeypatch):
    machine(TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert [slot.env["CUDA_VISIBLE_DEVICES"] for slot in slots("1")] == ["5"]


@pytest.mark.parametrize("hidden", ["", "-1", "NoDevFiles"])
def test_an_environment_that_hides_all_gpus_leaves_the_cpu(machine, monkeypatch, hidden):
    machine(TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert [slot.name for slot in slots()] == ["cpu"]


@pytest.mark.process
@pytest.mark.parametrize("named", ["1,0", "cuda:1,cuda:0", "GPU-bbbb,GPU-aaaa", "1, 0, 1"])
def test_devices_can_be_chosen_by_number_or_id(machine, named):
    machine(TWO)
    assert [slot.name for slot in slots(named)] == ["cuda:1", "cuda:0"]


@pytest.mark.parametrize(
    ("visible", "named", "opened"),
    [
        ("1,0", "cuda:0", [("cuda:0", "1")]),
        ("1,0", "1", [("cuda:1", "0")]),
        ("2,0", "0,1", [("cuda:0", "2"), ("cuda:1", "0")]),
        ("3,1,0", "1,0", [("cuda:1", "1"), ("cuda:0", "3")]),
        ("GPU-bbbb,GPU-aaaa", "GPU-aaaa", [("cuda:1", "GPU-aaaa")]),
        ("MIG-2222,MIG-1111", "MIG-1111,0", [("cuda:1", "MIG-1111"), ("cuda:0", "MIG-2222")]),
        ("1,0", None, [("cuda:0", "1"), ("cuda:1", "0")]),
    ],
)
def test_numbers_count_the_visible_gpus_as_torch_does(machine, monkeypatch, visible, named, opened):
    machine(TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [(slot.name, slot.env["CUDA_VISIBLE_DEVICES"]) for slot in slots(named)] == opened


@pytest.mark.parametrize(("visible", "named"), [("2,0", "2"), ("3,5", "5"), ("1,0", "GPU-aaaa")])
def test_a_number_that_the_environment_hides_is_refused(machine, monkeypatch, visible, named):
    machine(TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(UserError, match="there is no device") as raised:
        slots(named)
    assert "0, 1, cpu" in raised.value.help


@pytest.mark.parametrize(("gpus", "opened"), [([2], ["2"]), ([3, 1], ["3", "1"]), (["MIG-1"], ["MIG-1"]), ([], [""])])
def test_the_gpus_that_a_cluster_assigned_are_taken_by_their_ids(machine, monkeypatch, gpus, opened):
    """Ray shows a process what it assigned: ids, which number nothing there."""
    machine(TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, gpus)))
    assert [slot.env["CUDA_VISIBLE_DEVICES"] for slot in devices.assigned(gpus, 1)] == opened


@pytest.mark.process
def test_a_device_can_hold_several_trials(machine):
    machine(TWO)
    assert [slot.name for slot in slots("0", 2)] == ["cuda:0.0", "cuda:0.1"]


def test_the_cpu_can_hold_several_trials_that_share_the_cores(machine):
    machine(TWO)
    found = slots("cpu", 2)
    assert [slot.name for slot in found] == ["cpu:0", "cpu:1"]
    assert {slot.threads for slot in found} == {max(1, devices.cores() // 2)}


@pytest.mark.process
@pytest.mark.parametrize("named", ["2", "cuda:7", "tpu", ","])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(machine, named):
    machine(TWO)
    with pytest.raises(UserError) as raised:
        slots(named)
    assert "cpu" in raised.value.help
    assert raised.value.exit_code == 2


def test_no_trial_on_a_device_is_refused(machine):
    machine(None)
    with pytest.raises(UserError):
        slots("cpu", 0)


@pytest.mark.process
def test_a_driver_that_does_not_answer_is_not_taken_for_no_gpu(machine):
    machine("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", 9)
    with pytest.raises(EnvironmentFault, match="couldn't communicate") as raised:
        slots()
    assert "--devices cpu" in raised.value.help


@pytest.mark.process
def test_a_machine_with_the_driver_and_no_gpu_uses_its_cpu(machine):
    machine("No devices were found\n", 6)
    assert [slot.name for slot in slots()] == ["cpu"]


def test_macs_use_their_gpu(machine, monkeypatch):
    machine(None)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert [(slot.name, slot.device) for slot in slots()] == [("mps", "mps")]


# ------------------------------------------------------------------------------------ no nvidia-smi
LIBCUDA = r"""
#include <stdlib.h>
#include <string.h>
static int setting(const char *name) { const char *found = getenv(name); return found ? atoi(found) : 0; }
int cuInit(unsigned flags) { return setting("FAKE_CUINIT"); }
int cuDeviceGetCount(int *count) { *count = getenv("CUDA_VISIBLE_DEVICES") ? 1 : setting("FAKE_GPUS"); return 0; }
int cuDeviceGet(int *device, int number) { *device = number; return setting("FAKE_GET"); }
int cuDeviceGetUuid(unsigned char *id, int device) { memset(id, 0xa0 + device, 16); return 0; }
int cuDeviceGetUuid_v2(unsigned char *id, int device) {
  memset(id, 0xa0 + device, 16);
  if (device == 1) id[15] = 0;
  return 0;
}
int cuDeviceTotalMem_v2(size_t *total, int device) { *total = 24ul << 30; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { return 0; }
int cuCtxSetCurrent(void *context) { return 0; }
int cuMemGetInfo_v2(size_t *free, size_t *total) { *free = 20ul << 30; *total = 24ul << 30; return 0; }
"""
COMPILER = shutil.which("cc")
NO_CC = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")
A, B = "GPU-a0a0a0a0-a0a0-a0a0-a0a0-a0a0a0a0a0a0", "MIG-a1a1a1a1-a1a1-a1a1-a1a1-a1a1a1a1a100"


@pytest.fixture(scope="module")
def libcuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a driver library with made-up GPUs, the second of them a MIG slice."""
    folder = tmp_path_factory.mktemp("lib")
    command = [str(COMPILER), "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), "-xc", "-"]
    subprocess.run(command, input=LIBCUDA, text=True, check=True)
    return folder


@pytest.fixture
def driver(libcuda: Path, machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Makes this a machine without nvidia-smi, but with the driver's library, and so many GPUs."""

    def make(count: int, **settings: int) -> None:
        machine(None)
        monkeypatch.setattr(devices, "DEV", tmp_path)
        for name, value in {"FAKE_GPUS": count, **settings}.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setenv("LD_LIBRARY_PATH", str(libcuda))
        (tmp_path / "nvidia0").touch()
        (tmp_path / "nvidiactl").touch()

    return make


@pytest.mark.process
@NO_CC
def test_without_nvidia_smi_the_drivers_library_lists_the_gpus(driver):
    driver(2)
    assert [(slot.name, slot.env["CUDA_VISIBLE_DEVICES"]) for slot in slots()] == [("cuda:0", A), ("cuda:1", B)]


@pytest.mark.process
@NO_CC
def test_without_nvidia_smi_the_drivers_library_says_the_memory(driver):
    driver(1)
    assert devices.room(slots()) == {"cuda:0": 20.0}
    assert devices.smallest(slots()) == 24.0


@pytest.mark.process
@NO_CC
@pytest.mark.parametrize("settings", [{"FAKE_CUINIT": 803}, {"FAKE_CUINIT": 999}, {"FAKE_GET": 101}])
def test_a_driver_that_fails_is_not_taken_for_no_gpu(driver, settings):
    driver(1, **settings)
    with pytest.raises(EnvironmentFault, match=f"code {next(iter(settings.values()))}") as raised:
        slots()
    assert "--devices cpu" in raised.value.help
    assert [slot.name for slot in slots("cpu")] == ["cpu"]


@pytest.mark.process
@NO_CC
def test_a_driver_that_sees_no_gpu_where_there_is_one_is_not_believed(driver):
    driver(0, FAKE_CUINIT=100)
    with pytest.raises(EnvironmentFault, match="nvidia0 shows that there is a GPU"):
        slots()


@pytest.mark.process
@pytest.mark.skipif(find_library("cuda") is not None, reason="this machine has the driver's library")
def test_a_gpu_of_which_neither_program_nor_library_knows_is_said(machine, monkeypatch, tmp_path):
    machine(None)
    monkeypatch.setattr(devices, "DEV", tmp_path)
    (tmp_path / "nvidia3").touch()
    with pytest.raises(EnvironmentFault, match="nvidia3"):
        slots()


@pytest.mark.process
@NO_CC
def test_a_library_without_a_gpu_or_its_node_leaves_the_cpu(driver, monkeypatch, tmp_path):
    driver(0, FAKE_CUINIT=100)
    (tmp_path / "nvidia0").unlink()
    assert [slot.name for slot in slots()] == ["cpu"]
