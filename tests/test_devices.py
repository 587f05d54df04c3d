"""Which slots there are, on machines with and without GPUs. The driver's listing is a script that prints one."""

import sys
from pathlib import Path

import pytest

from sweeper import devices
from sweeper.devices import Slot, slots
from sweeper.errors import EnvironmentFault, UserError

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


def test_without_a_gpu_there_is_one_slot_with_all_cores(machine):
    machine(None)
    (slot,) = slots()
    assert (slot.name, slot.device, slot.threads) == ("cpu", "cpu", devices.cores())
    assert slot.env == {"CUDA_VISIBLE_DEVICES": ""}


def test_every_gpu_is_a_slot_that_sees_itself_alone(machine):
    machine(TWO)
    assert [(slot.name, slot.device, slot.env["CUDA_VISIBLE_DEVICES"]) for slot in slots()] == [
        ("cuda:0", "cuda:0", "GPU-aaaa"),
        ("cuda:1", "cuda:0", "GPU-bbbb"),
    ]


def test_the_smallest_gpu_is_the_one_of_which_nvidia_smi_says_the_least(machine):
    machine("24564\n")
    one, two = (Slot(name, "cuda:0", env={"CUDA_VISIBLE_DEVICES": f"GPU-{name}"}, home=name) for name in "ab")
    assert devices.smallest([one, one, two]) == 24564 / 1024
    assert devices.smallest([one, Slot("cpu")]) is None
    assert devices.smallest([]) is None


def test_a_gpu_of_which_nvidia_smi_says_nothing_has_no_known_size(machine):
    machine("[N/A]\n")
    assert devices.smallest([Slot("a", "cuda:0", env={"CUDA_VISIBLE_DEVICES": "MIG-a"}, home="a")]) is None


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


@pytest.mark.parametrize("named", ["1,0", "cuda:1,cuda:0", "GPU-bbbb,GPU-aaaa", "1, 0, 1"])
def test_devices_can_be_chosen_by_number_or_id(machine, named):
    machine(TWO)
    assert [slot.name for slot in slots(named)] == ["cuda:1", "cuda:0"]


def test_a_device_can_hold_several_trials(machine):
    machine(TWO)
    assert [slot.name for slot in slots("0", 2)] == ["cuda:0.0", "cuda:0.1"]


def test_the_cpu_can_hold_several_trials_that_share_the_cores(machine):
    machine(TWO)
    found = slots("cpu", 2)
    assert [slot.name for slot in found] == ["cpu:0", "cpu:1"]
    assert {slot.threads for slot in found} == {max(1, devices.cores() // 2)}


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


def test_a_driver_that_does_not_answer_is_not_taken_for_no_gpu(machine):
    machine("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", 9)
    with pytest.raises(EnvironmentFault, match="couldn't communicate") as raised:
        slots()
    assert "--devices cpu" in raised.value.help


def test_a_machine_with_the_driver_and_no_gpu_uses_its_cpu(machine):
    machine("No devices were found\n", 6)
    assert [slot.name for slot in slots()] == ["cpu"]


def test_macs_use_their_gpu(machine, monkeypatch):
    machine(None)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert [(slot.name, slot.device) for slot in slots()] == [("mps", "mps")]
