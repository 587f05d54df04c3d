"""The acceptance on a GPU, as far as a CPU goes: its sections run, what fails is seen, what does not fit is said."""

import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.gpu_check import findings, pace, place, steps, whole
from trainers.models.preflight import problems

ROOT = Path(__file__).parents[1]


def checked(out: Path, *words: str) -> tuple[int, list[dict[str, object]], str]:
    """Its exit code, its findings and its log."""
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--device", "cpu", "--out", str(out), *words]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = json.loads((out / "gpu_check.json").read_text())["findings"]
    return ended.returncode, found, ended.stdout + (out / "log.txt").read_text()


@pytest.mark.process
@pytest.mark.slow
def test_cheap_sections_run_on_a_cpu(tmp_path):
    code, found, said = checked(tmp_path, "--only", "env,feed")
    assert code == 0, said
    assert {one["section"] for one in found} == {"env", "feed"}
    assert {one["verdict"] for one in found} == {"ok", "info"}
    for one in found:
        assert str(one["what"]) in said


@pytest.mark.process
def test_what_no_longer_fits_into_the_budget_is_said(tmp_path):
    code, found, _ = checked(tmp_path, "--only", "env,learns", "--budget", "1")
    assert code == 0
    assert [(one["section"], one["verdict"]) for one in found] == [("env", "skipped"), ("learns", "skipped")]


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(2700)
def test_every_section_runs_on_a_cpu(tmp_path):
    code, found, said = checked(tmp_path)
    assert code == 0, said
    assert len({one["section"] for one in found}) == 14
    assert not [one for one in found if one["verdict"] == "FAIL"]


def test_what_a_section_found_before_it_died_is_kept(tmp_path):
    notes = findings.Notes(tmp_path / "notes.jsonl")
    notes.promise("holds", True, seconds=1.5)
    notes.promise("does not", False, where=Path("x"))
    notes.skip("is not here", "no compiler")
    assert [one.verdict for one in notes.read()] == ["ok", "FAIL", "skipped"]
    assert [one.figures for one in notes.read()][1:] == [{"where": "x"}, {"why": "no compiler"}]


def test_the_tests_that_need_a_gpu_are_found_in_every_folder_and_this_file_is_none_of_them():
    """It would start itself over and over."""
    found = whole.needing_a_gpu()
    assert ROOT / "tests" / "trainers" / "loading" / "test_loader.py" in found
    assert Path(__file__) not in found


def test_every_network_that_a_gpu_is_to_try_can_be_built():
    gpu = place.place("cuda")
    tried = [steps.wanted(gpu, train) for train, _ in steps.cases(gpu)] + [case.recipe for case in pace.GPU]
    assert {how.train.precision for how in tried} >= {"bf16", "fp16", "fp32"}
    assert not list(problems(tried))


# ------------------------------------------------------------------------------ what asks CUDA itself
@pytest.fixture
def asked(monkeypatch):
    """A made-up GPU of 10 GiB, and what was asked of it, in order."""
    heard: list[tuple[str, tuple[object, ...]]] = []
    answers = {
        "synchronize": None, "_sleep": None, "memory_allocated": 5 * 2**20, "max_memory_allocated": 2**30,
        "max_memory_reserved": 2**31, "empty_cache": None, "reset_peak_memory_stats": None,
        "set_sync_debug_mode": None, "set_per_process_memory_fraction": None,
        "get_device_properties": SimpleNamespace(total_memory=10 * 2**30),
    }  # fmt: skip

    def answering(name):
        return lambda *given: heard.append((name, given)) or answers[name]

    for name in answers:
        assert callable(getattr(torch.cuda, name)), "torch has no such function any more"
        monkeypatch.setattr(torch.cuda, name, answering(name))
    return heard


def test_a_gpu_is_asked_in_torchs_words(asked):
    gpu = place.place("cuda")
    assert (gpu.name, gpu.device, gpu.used()) == ("cuda", torch.device("cuda", 0), 5.0)
    assert gpu.peaks() == {"peak_gib": 1.0, "reserved_gib": 2.0}
    gpu.wait(), gpu.lag(2), gpu.forget()
    assert [name for name, _ in asked[-3:]] == ["_sleep", "empty_cache", "reset_peak_memory_stats"]


def test_limits_of_a_gpu_are_lifted_again_whatever_happens(asked):
    gpu = place.place("cuda")
    for limit, name, values in (
        (lambda: gpu.at_most(4.0, images=1), "set_per_process_memory_fraction", [(0.4,), (1.0,)]),
        (gpu.no_waits, "set_sync_debug_mode", [("error",), ("default",)]),
    ):
        with pytest.raises(RuntimeError), limit():
            raise RuntimeError("no room")
        assert [given for one, given in asked if one == name] == values


def test_a_cpu_stands_in_for_a_gpu_without_room():
    net = torch.nn.Linear(2, 2)
    with place.place("cpu").at_most(1.0, images=3):
        net(torch.ones(3, 2))
        with pytest.raises(torch.OutOfMemoryError):
            net(torch.ones(4, 2))
    net(torch.ones(4, 2))


def test_the_time_of_kernels_is_read_from_the_profiler():
    assert place.place("cpu").busy_ms(lambda: torch.ones(3).sum()) == 0.0
    event = SimpleNamespace(device_type="DeviceType.CUDA", self_device_time_total=1500.0)
    seen = nullcontext(SimpleNamespace(key_averages=lambda: [event, event]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, "profile", lambda **_: seen)
        assert place.place("cpu").busy_ms(lambda: None) == 3.0
