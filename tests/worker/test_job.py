"""What a worker makes of a job, with the real trainer and with the fake one."""

import builtins
import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sweeper.executors.inline import Inline
from sweeper.store.paths import RunFolder
from sweeper.trial import Done, Failed, Job, Kind, Progress, WorkerMessage
from sweeper.worker import fake_trainer
from sweeper.worker.job import advance, failure_of, run
from trainers import extensions
from trainers.config import Recipe, Views
from trainers.data.table import Category, Row
from trainers.data_config import DataConfig
from trainers.evaluation.bootstrap import standard_errors
from trainers.loading.batches import Data
from trainers.metrics.definitions import STANDARD, lacking
from trainers.optim import frequency
from trainers.support.checkpoint import read_notes
from trainers.support.checksummed import load_array
from trainers.support.errors import Diverged, EnvironmentFault
from trainers.support.position import Cursor


def job(data: DataConfig, folder: Path, cache: Path, *, kind: Kind = "trial", **train: object) -> Job:
    folder.mkdir(exist_ok=True)
    tiny = {"backbone": "test_resnet", "pretrained": False, "image_size": 32, "epochs": 3, "batch_size": 16}
    recipe = Recipe.model_validate({"data": data, "train": tiny | train})
    return Job(study="s", trial=4, kind=kind, recipe=recipe, folder=folder, cache=cache)


def messages(one: Job, *, keep: int = 10**6) -> list[WorkerMessage]:
    """All messages of a job; its epochs are answered with True `keep` times, then with False."""
    running = run(one, "cpu")
    said: list[WorkerMessage] = [advance(running, None)]
    while isinstance(said[-1], Progress):
        said.append(advance(running, len(said) <= keep))
    return said


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_TRAINER", "fake")


# ------------------------------------------------------------------------------------- extension files
LOSS = """
from torch.nn import functional

def half(logits, labels, share: float = 0.5):
    return share * functional.cross_entropy(logits, labels, reduction="none")

losses = {"half": half}
metrics = {"share": {"function": lambda probabilities, labels: float((probabilities.argmax(1) != labels).mean()),
                     "minimize": True}}
"""


def extended(photos: DataConfig, cache: Path, study: Path, text: str = LOSS, **train: object) -> Job:
    """A trial whose recipe was made with `text`, of which the study's folder has a copy."""
    (study / "extensions").mkdir(parents=True)
    (study / "extensions" / "mine.py").write_text(text)
    (study / "trials").mkdir()
    one = job(photos, study / "trials" / "0004", cache, epochs=1, **train)
    made = Recipe.model_validate(
        one.recipe.model_dump()
        | {"extensions": {"mine.py": hashlib.sha256(text.encode()).hexdigest()}, "metric": "share", "minimize": True}
    )
    return one.model_copy(update={"recipe": made})


def test_a_worker_loads_the_copy_of_an_extension_file(photos, cache, tmp_path):
    """Its loss is lower by its factor, its metric what it counts; the next job knows nothing of it."""
    *_, plain, _ = messages(job(photos, tmp_path / "plain", cache, epochs=1, loss={"name": "cross_entropy"}))
    own = extended(photos, cache, tmp_path / "study", loss={"name": "half", "share": 0.5})
    *_, half, done = messages(own)
    assert isinstance(done, Done)
    assert half.epoch.val.loss == pytest.approx(plain.epoch.val.loss / 2, rel=0.2)
    wrong = 1 - half.epoch.val.metrics["overall_accuracy"]
    assert half.epoch.val.further["share"] == pytest.approx(wrong, abs=1e-6)
    messages(job(photos, tmp_path / "again", cache, epochs=1))
    assert extensions.names("losses") == []


def test_a_copy_that_was_changed_fails_the_trial_and_says_so(photos, cache, tmp_path):
    own = extended(photos, cache, tmp_path / "study", loss={"name": "half"})
    (tmp_path / "study" / "extensions" / "mine.py").write_text(LOSS + "# more")
    (failed,) = messages(own)
    assert isinstance(failed, Failed)
    assert "not the one that the study started with" in failed.text


def test_what_somebodys_code_raises_fails_the_trial_with_the_line_of_their_file(photos, cache, tmp_path):
    text = LOSS.replace("return share", "return missing")
    (failed,) = messages(extended(photos, cache, tmp_path / "study", text, loss={"name": "half"}))
    assert isinstance(failed, Failed)
    assert failed.text == "half of losses failed: NameError: name 'missing' is not defined (mine.py:5)"


# -------------------------------------------------------------------------------------------- real
def test_a_trial_that_ended_within_an_epoch_leaves_no_position_to_the_next(photos, cache, tmp_path):
    text, cursor = LOSS.replace("return share", "return float('nan')"), Cursor()
    broken = extended(photos, cache, tmp_path / "study", text, loss={"name": "half"})
    ended = advance(run(broken, "cpu", cursor=cursor), None)
    assert isinstance(ended, Failed)
    assert (ended.failure, cursor.at) == ("nan", None)


def test_a_trial_is_trained_epoch_by_epoch(photos, cache, tmp_path):
    one = job(photos, tmp_path / "run", cache)
    said = messages(one)
    assert [message.epoch.number for message in said if isinstance(message, Progress)] == [1, 2, 3]
    assert said[-1] == Done(key=one.key, standard_errors=said[-1].standard_errors)
    assert RunFolder(tmp_path / "run").model.exists()


def fails(_handle: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_trial_that_was_told_to_stop_is_on_disk_before_it_says_so(photos, cache, tmp_path):
    one = job(photos, tmp_path / "run", cache)
    *_, done = messages(one, keep=1)
    assert done == Done(key=one.key, stopped=True)
    assert read_notes(RunFolder(one.folder).model)["epoch"]["number"] == 2
    assert [said.epoch.number for said in messages(one, keep=2) if isinstance(said, Progress)] == [1, 2, 3]


@pytest.mark.parametrize("folds", [None, 2])
def test_a_disk_that_is_full_when_a_trial_is_stopped_fails_it(photos, cache, tmp_path, monkeypatch, folds):
    one = job(photos, tmp_path / "run", cache)
    one = one.model_copy(update={"recipe": one.recipe.model_copy(update={"folds": folds})})
    running = run(one, "cpu")
    assert isinstance(advance(running, None), Progress)
    monkeypatch.setattr(os, "fsync", fails)
    ended = advance(running, False)
    assert isinstance(ended, Failed)
    assert ended.failure == "disk"


CORRECTIONS = {"none": {}, "fixed": {"tau": 0.8}, "fitted": {"fit": True}}


@pytest.mark.parametrize("how", CORRECTIONS.values(), ids=CORRECTIONS)
def test_a_trial_leaves_its_metrics_in_resamples_of_val_corrected_as_they_are(photos, cache, tmp_path, how):
    one = job(photos, tmp_path / "run", cache, posthoc_logit_adjustment=how, selection="last")
    *_, last, end = messages(one)
    resamples = load_array(RunFolder(one.folder).val_bootstrap)
    assert end.standard_errors == standard_errors(resamples)
    assert set(end.standard_errors) == set(last.epoch.val.metrics)
    for name, value in last.epoch.val.metrics.items():
        assert abs(resamples[name].mean() - value) < max(0.01, end.standard_errors[name]), name


def looking(one: Job, **views: object) -> Job:
    train = one.recipe.train.model_copy(update={"tta": Views(**views)})
    return one.model_copy(update={"recipe": one.recipe.model_copy(update={"train": train})})


def test_a_trial_with_test_time_augmentation_is_looked_at_again(photos, cache, tmp_path):
    one = looking(job(photos, tmp_path / "run", cache), flip=True)
    end = messages(one)[-1]
    assert end == Done(key=one.key, tta=end.tta, standard_errors=end.standard_errors)
    assert set(end.tta.category_accuracy) == {"colour", "place"}


def test_a_second_look_that_fails_costs_the_trial_nothing(photos, cache, tmp_path):
    one = looking(job(photos, tmp_path / "run", cache), flip=True)
    running = run(one, "cpu")
    said = [advance(running, None)]
    while isinstance(said[-1], Progress):
        if said[-1].epoch.number == 3:
            RunFolder(one.folder).model.write_bytes(b"not weights any more")
        said.append(advance(running, True))
    assert said[-1] == Done(key=one.key, standard_errors=said[-1].standard_errors)


def test_a_final_is_fitted_on_all_labels_and_leaves_a_model_and_predictions(photos, cache, tmp_path):
    one = job(photos, tmp_path / "run", cache, kind="final").model_copy(update={"stop_after": 2})
    said = messages(one)
    folder = RunFolder(one.folder)
    assert [message.epoch.val for message in said if isinstance(message, Progress)] == [None, None]
    assert read_notes(folder.model)["epoch"]["number"] == 2
    assert np.load(folder.test_logits).shape == (12, 3 + 2)
    end = said[-1]
    assert isinstance(end, Done)
    assert end.scores
    assert set(end.scores.category_accuracy) == {"colour", "place"}
    assert set(end.scores.standard_errors) == set(end.scores.metrics)
    assert not folder.val_bootstrap.exists()


def test_a_finals_predictions_are_corrected_by_the_strength_that_its_winner_fitted(photos, cache, tmp_path):
    found = []
    for tau in (0.0, 1.5):
        one = job(photos, tmp_path / str(tau), cache, kind="final")
        messages(one.model_copy(update={"stop_after": 1, "tau": tau}))
        found.append(np.load(RunFolder(one.folder).test_logits))
    data = Data.open(photos, cache)
    taken = 1.5 * frequency.log_prior(data.counts(data.table.indices("train", "val")))
    np.testing.assert_allclose(found[0] - found[1], np.tile(taken, (len(found[0]), 1)), atol=1e-5)


def test_what_the_user_can_mend_is_said_in_the_users_words(cache, tmp_path):
    said = messages(job(DataConfig(layout="table", root=str(tmp_path / "absent")), tmp_path / "run", cache))
    assert len(said) == 1
    assert isinstance(said[0], Failed)
    assert said[0].failure == "error"
    assert "absent" in said[0].text + said[0].detail
    assert "Traceback" in said[0].detail


# -------------------------------------------------------------------------------------------- fake
@pytest.mark.usefixtures("faked")
def test_the_fake_keeps_what_the_real_trainer_promises(photos, cache, tmp_path):
    one = job(photos, tmp_path / "run", cache)
    first = messages(one, keep=1)
    assert [message.tag for message in first] == ["progress", "progress", "done"]
    assert first[-1] == Done(key=one.key, stopped=True)
    assert messages(one)[:2] == first[:2]
    assert RunFolder(one.folder).model.exists()


@pytest.mark.usefixtures("faked")
def test_the_fake_begins_again_where_the_checkpoint_is_another_recipes(photos, cache, tmp_path, capsys):
    messages(job(photos, tmp_path / "run", cache))
    said = messages(job(photos, tmp_path / "run", cache, seed=1))
    assert len(said) == 4
    assert "another recipe" in capsys.readouterr().out


@pytest.mark.usefixtures("faked")
def test_a_final_of_the_fake_predicts_every_test_image(photos, cache, tmp_path):
    one = job(photos, tmp_path / "run", cache, kind="final")
    end = messages(one)[-1]
    assert isinstance(end, Done)
    assert end.scores
    assert np.load(RunFolder(one.folder).test_logits).shape == (12, 3 + 2)


@pytest.mark.usefixtures("faked")
def test_a_final_that_is_stopped_in_its_last_epoch_is_finished(photos, cache, tmp_path):
    one = job(photos, tmp_path / "run", cache, kind="final").model_copy(update={"stop_after": 1})
    assert [message.tag for message in messages(one, keep=0)] == ["progress", "done"]
    assert RunFolder(one.folder).model.exists()


@pytest.mark.usefixtures("faked")
def test_an_inline_failure_shows_its_traceback(photos, cache, tmp_path, capsys):
    executor = Inline()
    one = job(photos, tmp_path / "run", cache, backbone="broken.error")
    executor.start(one)
    executor.next(0)
    executor.answer(one.key, keep=True)
    executor.next(0)
    assert "ValueError: this recipe is broken" in capsys.readouterr().err


@pytest.mark.process
def test_a_fake_worker_loads_no_torch():
    code = "import sys, sweeper.worker.process, sweeper.worker.job; print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "False"


# ------------------------------------------------------------------------------------------ errors
@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (Diverged("nan in epoch 3"), "nan"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk"),
        (OSError(errno.ENOENT, "No such file"), "error"),
        (MemoryError(), "oom"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "oom"),
        (EnvironmentFault("no weights"), "error"),
    ],
)
def test_an_error_is_filed_under_its_failure(error, failure):
    assert failure_of(error) == failure


@pytest.fixture
def full() -> Iterator[None]:
    """Whatever passes through a network finds no memory."""
    import torch

    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    hook = torch.nn.modules.module.register_module_forward_pre_hook(refuse)
    yield
    hook.remove()


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize(
    ("alone", "wanted", "micro_batch", "lay"),
    [(True, True, None, True), (True, False, None, False), (False, True, None, False), (True, True, 4, False)],
)
def test_want_of_memory_says_whether_the_images_lay_on_the_device(
    photos, cache, tmp_path, alone, wanted, micro_batch, lay
):
    import torch

    from trainers.loading.image_store import DEVICE_IMAGES

    one = job(photos, tmp_path / "run", cache).model_copy(update={"resident": wanted, "micro_batch": micro_batch})
    DEVICE_IMAGES.take(Data.open(photos, cache).cache.images, torch.device("cpu"))
    ended = advance(run(one, "cpu", alone=alone), None)
    DEVICE_IMAGES.clear()
    assert (ended.failure, ended.resident) == ("oom", lay)


@pytest.mark.parametrize("alone", [True, False])
def test_a_process_with_neighbours_gives_memory_back_after_each_epoch(photos, cache, tmp_path, monkeypatch, alone):
    import torch

    given = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given.append(1))
    running = run(job(photos, tmp_path / "run", cache), "cpu", alone=alone)
    advance(running, None)
    advance(running, True)
    running.close()
    assert len(given) == (0 if alone else 2)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB"),
        ("AcceleratorError", "CUDA error: out of memory"),
        ("RuntimeError", "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        ("RuntimeError", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        ("RuntimeError", "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        ("RuntimeError", "GET was unable to find an engine to execute this computation"),
        ("RuntimeError", "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a"),
    ],
)
def test_every_way_in_which_a_gpu_runs_out_of_memory_is_filed_as_that(monkeypatch, kind, said):
    """On a GPU that is nearly full, which some of these words need to be believed."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1, 100))
    assert failure_of(vars(builtins).get(kind, getattr(torch, kind, RuntimeError))(said)) == "oom"


# ---------------------------------------------------------------- missing answers, several answers, faked
ONE, TAGS = Category("fit", ("tight", "loose")), Category("tags", ("warm", "dry"), multi=True)


@pytest.mark.parametrize("asked", [(ONE,), (TAGS,), (ONE, TAGS)])
def test_made_up_scores_have_the_metrics_that_such_data_have(asked):
    found = fake_trainer.scores(0.5, asked)
    absent = lacking([category.multi for category in asked])
    assert set(found.metrics) == set(STANDARD) - set(absent)
    assert list(found.category_accuracy) == [category.name for category in asked]


def test_made_up_scores_of_test_count_the_answers_that_are_known():
    labels = [(0, 1, 0), (-1, -1, 1), (1, -1, -1), None]
    rows = [Row(f"{n}.png", "test", None, known, "") for n, known in enumerate(labels)]
    assert fake_trainer.known_answers(rows, (ONE, TAGS)) == {"fit": 2, "tags": 2}
    assert fake_trainer.known_answers(rows[:1], (ONE, TAGS)) == {}
