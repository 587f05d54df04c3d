"""Studies that tests play: real files, real spaces, the fake trainer's curves."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial

from sweeper.search import history
from sweeper.space import yaml_io
from sweeper.space.space import Space
from sweeper.store import records
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.study.gpu_memory import UNKNOWN, MachineInfo
from sweeper.study.state import Definition
from sweeper.study.study import Study
from sweeper.trial import Closing, Done, Job, Observer, Progress, TrialResult
from sweeper.worker.job import advance, run
from trainers.epoch import Epoch

SPACE = """\
study: question
data: {{layout: folder, root: nothing}}
budget: {budget}
search: {search}
train:
  backbone: {backbone}
  loss: {{name: focal, gamma: {{uniform: [0.0, 5.0]}}}}
  optimizer: {{name: adamw, lr: {{loguniform: [1.0e-5, 1.0e-1]}}}}
  schedule: {{choice: [constant, {{name: step, every: {{int: [1, 5]}}}}]}}
  epochs: {epochs}
"""
QUICK = "{sampler: random, pruner: {name: median, startup_trials: 2, min_trials: 2, warmup_epochs: 1}}"
CLIMB = "{sampler: {name: tpe, startup_trials: 3}, pruner: {name: asha, min_epochs: 1, reduction_factor: 2}}"
OPEN: list[Study] = []


def write(
    folder: Path,
    *,
    budget: str = "{trials: 12}",
    search: str = "{sampler: tpe}",
    backbone: str = "{choice: [resnet18, resnet50]}",
    epochs: int = 6,
    text: str = SPACE,
    **train: str,
) -> Path:
    """A search space in `folder`; `train` replaces lines of that part, and drops the schedule's choice."""
    path = folder / "question.yaml"
    filled = text.format(budget=budget, search=search, backbone=backbone, epochs=epochs)
    if train:
        kept = [line for line in filled.splitlines() if line.split(":")[0].strip() not in {*train, "schedule"}]
        filled = "\n".join([*kept, *(f"  {key}: {value}" for key, value in train.items()), ""])
    path.write_text(filled)
    return path


def opened(
    path: Path,
    *,
    sets: Sequence[str] = (),
    fingerprint: str = "",
    categories: Sequence[str] = ("pattern",),
    here: MachineInfo = UNKNOWN,
) -> Study:
    """The study of the file at `path`, begun or taken up again beside it."""
    read = yaml_io.read(path, sets=sets)
    space, folder = Space(read, categories), StudyFolder(path.parent / "question")
    study = Study.open(Definition(read, space, folder, fingerprint), path.parent / "cache", here=here)
    OPEN.append(study)
    return study


def past(path: Path, study: str = "question") -> list[FrozenTrial]:
    """The trials of `study`, begun beside its file at `path`, as Optuna has them in the next call."""
    space, folder = Space(yaml_io.read(path), ("pattern",)), StudyFolder(path.parent / study)
    return history.past_trials(folder, records.ended(folder), space.suggest)


def close_all() -> None:
    """Close what a test left open."""
    while OPEN:
        OPEN.pop().close()


def curve(job: Job) -> list[Epoch]:
    """The epochs that the fake trainer makes of `job`; its checkpoint is left in the job's folder."""
    messages, epochs = run(job, "cpu"), []
    message = advance(messages, None)
    while isinstance(message, Progress):
        epochs.append(message.epoch)
        message = advance(messages, keep=True)
    return epochs


def played(study: Study, job: Job) -> None:
    """Train `job` to its end, as the loop would."""
    for epoch in curve(job):
        if not study.report(job.key, epoch):
            study.finish(Done(key=job.key, stopped=True))
            return
    study.finish(Done(key=job.key))


def play(study: Study, jobs: int | None = None) -> None:
    """Train `jobs` jobs, or until there are none left and what is paused has ended."""
    while jobs != 0 and (job := study.next_job()):
        played(study, job)
        jobs = None if jobs is None else jobs - 1
    if jobs is None:
        study.settle()


class Seen(Observer):
    """An observer that writes down what it is told; `loud` also prints it."""

    def __init__(self, *, loud: bool = False) -> None:
        self.loud = loud
        self.words: list[str] = []

    def say(self, *words: object) -> None:
        self.words.append(" ".join(map(str, words)))
        if self.loud:
            print(self.words[-1], flush=True)

    def started(self, job: Job, slot: str) -> None:
        self.say("start", job.trial, *([slot] if slot else []))

    def epoch(self, job: Job, epoch: Epoch, _: TrialResult | None) -> None:
        self.say("epoch", job.trial, epoch.number)

    def ended(self, _: Job, result: TrialResult) -> None:
        self.say("end", result.number, result.state)

    def note(self, text: str) -> None:
        self.say("note", text)

    def closed(self, closing: Closing) -> None:
        self.say("closed", closing.state)


def outcome(study: Study) -> list[tuple[object, ...]]:
    """What must not depend on interruptions."""
    return [(one.number, one.state, one.params, one.value, one.epoch, one.epochs) for one in study.results()]


def uninterrupted(folder: Path, *, epochs: int, search: str = QUICK, trials: int = 8) -> list[tuple[object, ...]]:
    """What a sweep comes to that nothing disturbs."""
    path = write(folder, search=search, epochs=epochs, budget=f"{{trials: {trials}}}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEP_TRAINER", "fake")
        study = opened(path)
        play(study)
        study.close()
    return outcome(study)


def numbers(folder: RunFolder) -> list[int]:
    """The epochs' numbers in a history file, as they stand."""
    return [Epoch.model_validate_json(line).number for line in folder.history.read_text().splitlines()]
