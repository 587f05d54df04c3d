"""Trials that run out of memory: smaller pieces, remembered; and configurations that are not tried again."""

import json
import os
from pathlib import Path

import pytest

from sweeper.engine import loop
from sweeper.errors import EnvironmentFault
from sweeper.executors.inline import Inline
from sweeper.store import records
from sweeper.study.gpu_memory import UNKNOWN, GpuMemoryLimits, MachineInfo
from sweeper.study.study import REFUSED, Study
from sweeper.system.signals import Stop
from sweeper.trial import Job
from tests.support.cli import SPACE, lay_out
from tests.support.cli import sweep as command
from tests.support.studies import Seen, opened, past, write
from trainers.config import Recipe

NO_PRUNER = "{sampler: random, pruner: none}"


pytestmark = pytest.mark.usefixtures("faked")


def job(number: int = 0, *, batch: int = 64, backbone: str = "resnet18", size: int = 224, **more: object) -> Job:
    train = {"backbone": backbone, "image_size": size, "batch_size": batch}
    recipe = Recipe.model_validate({"data": {"root": "nothing"}, "train": train})
    return Job(study="s", trial=number, recipe=recipe, folder=Path("run"), cache=Path("cache"), **more)


def on(gib: float | None) -> MachineInfo:
    """A machine with one GPU of so much memory."""
    return MachineInfo(gpu=lambda: gib)


def swept(path: Path, here: MachineInfo = UNKNOWN) -> tuple[loop.SessionEnd, Study, Seen]:
    study, seen = opened(path, here=here), Seen()
    ended = loop.run(study, Inline(), seen, stop=Stop())
    study.close()
    return ended, study, seen


def micro_batches(study: Study) -> list[int | None]:
    jobs = [records.read_config(study.folder.trial(one.number)) for one in study.results()]
    return [job.micro_batch for job in jobs if job]


# ------------------------------------------------------------------------------------- what is learnt
def test_half_as_many_images_are_tried_once_a_call_and_half_of_those_are_remembered(tmp_path):
    known = GpuMemoryLimits(tmp_path / "gpu_memory.json")
    first = known.halve_micro_batch(job())
    assert first is not None
    assert (first.micro_batch, first.recipe.train.batch_size) == (32, 64)
    assert known.halve_micro_batch(first) is None
    assert known.begin(job(1)).micro_batch == 16
    assert GpuMemoryLimits(tmp_path / "gpu_memory.json").halve_micro_batch(first).micro_batch == 16


def test_only_the_same_backbone_and_image_size_begin_smaller_and_only_where_a_batch_is_larger(tmp_path):
    known = GpuMemoryLimits(tmp_path / "gpu_memory.json")
    known.halve_micro_batch(job())
    asked = [job(1), job(1, backbone="resnet50"), job(1, size=96), job(1, batch=32)]
    assert [known.begin(one).micro_batch for one in asked] == [32, None, None, None]


def test_what_one_trial_learnt_is_not_forgotten_by_a_larger_one(tmp_path):
    known = GpuMemoryLimits(tmp_path / "gpu_memory.json")
    known.halve_micro_batch(job(0, batch=16))
    known.halve_micro_batch(job(1, batch=64))
    assert known.begin(job(2)).micro_batch == 8


def test_half_is_half_of_a_batch_that_really_occurs(tmp_path):
    """A split of 100 images is one batch of 100, whatever batch_size says."""
    known = GpuMemoryLimits(tmp_path / "gpu_memory.json", MachineInfo(images=100))
    first = known.halve_micro_batch(job(batch=512))
    assert first is not None
    assert first.micro_batch == 50
    assert "micro-batches of 50, 2 per step" in known.explanation(first, "OutOfMemoryError")
    assert known.begin(job(1, batch=1024)).micro_batch == 50
    large = job(2, batch=512, micro_batch=256)  # as an earlier call may have left it
    assert known.halve_micro_batch(large).micro_batch == 50


def test_a_batch_in_pieces_that_no_batch_fills_is_whole(tmp_path):
    GpuMemoryLimits(tmp_path / "gpu_memory.json").halve_micro_batch(job(batch=512))
    assert (
        GpuMemoryLimits(tmp_path / "gpu_memory.json", MachineInfo(images=100)).begin(job(1, batch=512)).micro_batch
        is None
    )


def test_too_few_images_at_once_are_not_tried(tmp_path):
    known = GpuMemoryLimits(tmp_path / "gpu_memory.json")
    assert known.halve_micro_batch(job(batch=7)) is None
    assert known.begin(job(1)).micro_batch is None


def test_a_damaged_memory_is_said_with_the_remedy(tmp_path):
    (tmp_path / "gpu_memory.json").write_text("{")
    with pytest.raises(EnvironmentFault, match="delete it"):
        GpuMemoryLimits(tmp_path / "gpu_memory.json")


# --------------------------------------------------------------------------------- on another GPU
def test_what_a_smaller_gpu_had_no_room_for_binds_no_larger_one(tmp_path):
    path = tmp_path / "gpu_memory.json"
    GpuMemoryLimits(path).halve_micro_batch(job(), 24.0)
    gpus = {None: 32, 16.0: 32, 24.0: 32, 26.4: 32, 26.5: None}
    assert {gib: GpuMemoryLimits(path, on(gib)).begin(job(1)).micro_batch for gib in gpus} == gpus


def test_each_size_of_gpu_has_its_own_figure(tmp_path):
    path = tmp_path / "gpu_memory.json"
    GpuMemoryLimits(path).halve_micro_batch(job(0, batch=16), 24.0)
    GpuMemoryLimits(path).halve_micro_batch(job(1, batch=64), 80.0)
    known = {
        gib: GpuMemoryLimits(path, on(gib)).begin(job(2, batch=256)).micro_batch for gib in (16.0, 24.0, 80.0, 141.0)
    }
    assert known == {16.0: 8, 24.0: 8, 80.0: 32, 141.0: None}


def test_a_file_without_sizes_is_true_of_every_gpu(tmp_path):
    path = tmp_path / "gpu_memory.json"
    path.write_text('{\n "resnet18 224": 16\n}\n')
    assert GpuMemoryLimits(path, on(141.0)).begin(job()).micro_batch == 16
    GpuMemoryLimits(path, on(141.0)).halve_micro_batch(job(1, batch=256), 141.0)
    assert GpuMemoryLimits(path, on(141.0)).begin(job(2)).micro_batch == 16


def test_where_no_gpu_had_a_say_none_is_asked_for_its_size(tmp_path):
    def nobody() -> float:
        raise AssertionError("nvidia-smi may take seconds")

    path = tmp_path / "gpu_memory.json"
    GpuMemoryLimits(path).halve_micro_batch(job())
    assert GpuMemoryLimits(path, MachineInfo(gpu=nobody)).begin(job(1)).micro_batch == 32


@pytest.mark.parametrize(
    ("text", "where"),
    [("OutOfMemoryError: CUDA out of memory", "GPU memory"), ("MemoryError", "memory")],
)
def test_the_line_names_whose_memory_and_how_many_pieces_a_step_has(tmp_path, text, where):
    one = job(batch=100).model_copy(update={"micro_batch": 48})
    assert (
        GpuMemoryLimits(tmp_path / "gpu_memory.json").explanation(one, text)
        == f"out of {where}; continues with micro-batches of 48, 3 per step"
    )


# ------------------------------------------------------------------- decoded images on the GPU
def test_images_leave_the_gpu_before_a_batch_is_halved_and_later_trials_begin_so(tmp_path):
    known = GpuMemoryLimits(tmp_path / "gpu_memory.json")
    first = known.unload(job())
    assert (first.resident, first.micro_batch) == (False, None)
    assert (
        known.explanation(first, "OutOfMemoryError") == "out of GPU memory; continues with the images in host memory"
    )
    for one in (known, GpuMemoryLimits(tmp_path / "gpu_memory.json")):
        begun = one.begin(job(1))
        assert (begun.resident, begun.micro_batch) == (False, None)
        assert one.begin(job(1, size=96)).resident
    assert known.halve_micro_batch(first).micro_batch == 32


def test_that_images_had_no_room_binds_no_larger_gpu_and_is_kept_beside_the_figure_of_a_batch(tmp_path):
    path = tmp_path / "gpu_memory.json"
    known = GpuMemoryLimits(path)
    known.halve_micro_batch(known.unload(job(), 24.0), 24.0)
    begun = {gib: GpuMemoryLimits(path, on(gib)).begin(job(1)) for gib in (24.0, 80.0)}
    assert {gib: (one.resident, one.micro_batch) for gib, one in begun.items()} == {
        24.0: (False, 32),
        80.0: (True, None),
    }
    assert json.loads(path.read_text()) == {"resnet18 224": [{"images": 32, "gib": 24.0, "resident": False}]}


def test_a_trial_without_room_beside_the_images_goes_on_with_whole_batches(tmp_path):
    ended, study, seen = swept(write(tmp_path, backbone="broken.oom_images", budget="{trials: 3}", search=NO_PRUNER))
    assert ended.exit_code == 0
    assert [(one.state, one.epochs) for one in study.results()] == [("COMPLETE", 6)] * 3
    assert micro_batches(study) == [None, None, None]
    assert [word for word in seen.words if "memory" in word] == [
        "note trial 0: out of GPU memory; continues with the images in host memory"
    ]


@pytest.mark.process
def test_a_final_whose_images_have_no_room_is_trained_without_them_on_the_gpu(tmp_path):
    lay_out(tmp_path, SPACE.replace("test_resnet", "broken.oom_images").replace("trials: 3", "trials: 1"))
    assert command(tmp_path, "run", "space.yaml", "--devices", "cpu", "--no-mlflow").returncode == 0
    (trial,) = tmp_path.glob("mlruns/studies/question/trials/*/config.json")
    kept = json.loads(trial.read_text())
    trial.write_text(json.dumps(kept | {"resident": True}))  # as if the trial had had a larger GPU
    ended = command(tmp_path, "best", "--export", "submission", "--devices", "cpu", "--no-mlflow")
    assert ended.returncode == 0, ended.stderr
    assert "retrying with the images in host memory" in ended.stderr


# ------------------------------------------------------------------------------------------ in a sweep
def test_a_trial_without_room_goes_on_in_pieces_and_the_next_begins_so(tmp_path):
    ended, study, seen = swept(write(tmp_path, backbone="broken.oom_64", budget="{trials: 3}", search=NO_PRUNER))
    assert ended.exit_code == 0
    assert [(one.state, one.epochs) for one in study.results()] == [("COMPLETE", 6)] * 3
    assert micro_batches(study) == [32, 32, 32]
    assert [word for word in seen.words if "memory" in word] == [
        "note trial 0: out of GPU memory; continues with micro-batches of 32, 2 per step"
    ]


def test_a_trial_that_never_has_room_fails_and_the_search_goes_on(tmp_path):
    path = write(tmp_path, backbone="{choice: [broken.oom, resnet18]}", search=NO_PRUNER)
    ended, study, _ = swept(path)
    assert ended.exit_code == 0
    assert {(one.backbone, one.state, one.failure) for one in study.results()} == {
        ("broken.oom", "FAILED", "oom"),
        ("resnet18", "COMPLETE", None),
    }


def test_a_sweep_that_never_has_room_ends_early_though_no_two_errors_are_alike(tmp_path):
    ended, study, _ = swept(write(tmp_path, backbone="broken.oom", budget="{trials: 100}", search=NO_PRUNER))
    assert ended.exit_code == 5
    assert "5 trials in a row failed the same way" in ended.reason
    assert len(study.results()) == 5


# ------------------------------------------------------------------------ what is not tried again
CLOSED = """\
study: question
data: {{layout: folder, root: nothing}}
budget: {budget}
search: {search}
train:
  backbone: {backbone}
  epochs: {epochs}
  batch_size: {{choice: [32, 64]}}
"""


def closed(folder: Path, **more: str) -> Path:
    """A space of few configurations: most proposals are repeats."""
    kept = {"backbone": "{choice: [resnet18, broken.oom]}", "search": NO_PRUNER, "budget": "{trials: 12}"}
    return write(folder, text=CLOSED, **(kept | more))


def test_a_configuration_without_room_is_not_trained_again_with_another_seed(tmp_path):
    ended, study, seen = swept(closed(tmp_path))
    assert ended.exit_code == 0
    lost = [one for one in study.results() if one.backbone == "broken.oom"]
    assert len(study.results()) == 12
    assert len(lost) > 2
    first = {one.params["batch_size"]: one.number for one in reversed(lost)}
    others = [one for one in lost if one.number not in first.values()]
    assert {(one.state, one.failure, one.epochs) for one in others} == {("FAILED", "oom", 0)}
    for one in others:
        known = first[one.params["batch_size"]]
        assert one.error == f"the same configuration ran out of memory in trial {known}"
    trained = {word.split()[1] for word in seen.words if word.endswith("cpu")}
    assert not trained & {str(one.number) for one in others}
    for one in others:
        assert seen.words.count(f"end {one.number} FAILED") == 1


def test_the_sampler_is_told_no_number_of_a_refused_configuration(tmp_path):
    swept(closed(tmp_path))
    for trial in past(closed(tmp_path)):
        if trial.params["backbone"] == "broken.oom":
            assert (trial.state.name, trial.values) == ("FAIL", None)
            assert set(trial.intermediate_values) <= {1}


def test_a_later_call_refuses_it_too(tmp_path):
    swept(closed(tmp_path))
    _, study, seen = swept(closed(tmp_path, budget="{trials: 24}"))
    again = [one for one in study.results()[12:] if one.backbone == "broken.oom"]
    assert again
    assert {one.epochs for one in again} == {0}
    assert not [word for word in seen.words if "memory" in word]


def test_a_trial_that_was_killed_before_it_could_be_refused_is_refused_by_the_next_call(tmp_path):
    path = closed(tmp_path)
    swept(path)
    study = opened(closed(tmp_path, budget="{trials: 40}"))
    while (begun := study.next_job()) and begun.recipe.train.backbone != "broken.oom":
        pass  # left open, as by a kill
    study.close()
    _, study, _ = swept(path)
    (one,) = [result for result in study.results() if result.number == begun.trial]
    assert (one.state, one.failure, one.epochs) == ("FAILED", "oom", 0)


def test_a_grid_whose_every_configuration_has_no_room_ends(tmp_path):
    path = write(
        tmp_path,
        backbone="{choice: [broken.oom, resnet18]}",
        search="{sampler: grid, pruner: none}",
        budget="{hours: 1}",
        text=CLOSED,
    )
    ended, study, _ = swept(path)
    assert ended.exit_code == 0
    assert sorted(one.state for one in study.results()) == ["COMPLETE", "COMPLETE", "FAILED", "FAILED"]


def test_a_sampler_that_proposes_nothing_else_ends_the_sweep_instead_of_looping(tmp_path):
    """Hours alone would let it propose for ever."""
    ended, study, _ = swept(closed(tmp_path, backbone="broken.oom", budget="{hours: 1}"))
    epochs = [one.epochs for one in study.results()]
    assert (ended.exit_code, sum(epochs), epochs[-REFUSED:]) == (5, 2, [0] * REFUSED)
    assert f"the last {REFUSED} configurations" in ended.reason


# ------------------------------------------------------------------------------- a sweep on another GPU
LARGER = "{choice: [broken.oom, broken.oom_64, resnet18]}"


def test_a_larger_gpu_is_asked_anew_and_what_it_refuses_stays_refused_there(tmp_path, monkeypatch):
    monkeypatch.setenv("SWEEP_FAKE_GIB", "24")
    _, study, _ = swept(closed(tmp_path), on(24.0))
    small = [one for one in study.results() if one.failure == "oom"]
    assert small
    assert {one.gpu_memory_gib for one in small} == {24.0}
    monkeypatch.setenv("SWEEP_FAKE_GIB", "80")
    _, study, _ = swept(closed(tmp_path, budget="{trials: 36}"), on(80.0))
    large = [one for one in study.results()[12:] if one.failure == "oom"]
    assert {one.gpu_memory_gib for one in large} == {80.0}
    trained = [one for one in large if one.epochs]
    assert len({one.params["batch_size"] for one in trained}) == len(trained) > 0
    later = {one.error for one in large if not one.epochs}
    assert later <= {f"the same configuration ran out of memory in trial {one.number}" for one in trained}


def graphics(folder: Path, mib: int) -> dict[str, str]:
    """The environment of a machine with one GPU of so much memory, as a real program called nvidia-smi says."""
    program = folder / "bin/nvidia-smi"
    program.parent.mkdir(exist_ok=True)
    listed = "echo 'GPU 0: NVIDIA A40 (UUID: GPU-aaaa)'"
    program.write_text(f"#!/bin/sh\ncase $1 in -L) {listed};; --query-gpu=memory.total) echo {mib};; esac\n")
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    return {"PATH": path, "SWEEP_FAKE_GIB": str(round(mib / 1024, 1)), "CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.process
def test_the_command_on_a_larger_gpu_begins_whole_again_and_on_the_old_one_in_pieces(tmp_path):
    lay_out(tmp_path, SPACE.replace("test_resnet", "broken.oom_64"))
    begun = []
    for trials, mib in ((1, 24564), (2, 81559), (3, 24564)):
        words = ("run", "space.yaml", "--no-mlflow", "--trials", str(trials))
        ended = command(tmp_path, *words, **graphics(tmp_path, mib))
        assert ended.returncode == 0, ended.stderr
        begun.append("out of GPU memory" in ended.stderr)
    assert begun == [True, True, False]
    assert json.loads((tmp_path / "mlruns/studies/question/gpu_memory.json").read_text()) == {
        "broken.oom_64 32": [{"images": 15, "gib": 24.0}, {"images": 15, "gib": 79.6}]
    }


# ---------------------------------------------------------------------------------------- the winner
@pytest.mark.process
def test_a_final_takes_the_winners_pieces_and_says_what_to_do_when_it_has_no_room_itself(tmp_path):
    """The network has no room the first time in each folder: in the trial's, and in the final's."""
    lay_out(tmp_path, SPACE.replace("test_resnet", "broken.oom_once").replace("trials: 3", "trials: 1"))
    assert command(tmp_path, "run", "space.yaml", "--devices", "cpu", "--no-mlflow").returncode == 0
    export = ("best", "--export", "submission", "--devices", "cpu", "--no-mlflow")
    failed = command(tmp_path, *export)
    assert failed.returncode == 1
    assert "retraining of trial 0 ran out of memory: OutOfMemoryError: CUDA out of memory" in failed.stderr
    assert "`sweep doctor` shows what is using GPU memory" in failed.stderr
    assert command(tmp_path, *export).returncode == 0
    (config,) = tmp_path.glob("mlruns/studies/question/finals/*/config.json")
    assert Job.model_validate_json(config.read_text()).micro_batch == 15
