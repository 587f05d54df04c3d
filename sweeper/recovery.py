"""How a study is taken up again: everything that earlier calls left, and kills kept from being written, is mended."""

from collections.abc import Callable

from optuna.trial import FrozenTrial, Trial, TrialState

from sweeper import rebuild, record, warm
from sweeper.ends import Ends
from sweeper.ledger import Entry
from sweeper.parts import Parts
from sweeper.promotion import Ladder
from sweeper.storage import taught
from sweeper.trial import TrialResult


def recover(parts: Parts, ends: Ends, say: Callable[[str], None]) -> None:
    """Take up what earlier calls left: ends and epochs that Optuna was not told, and trials without an end."""
    _learn(parts)
    _rebuild(parts, say)
    trials = parts.study.get_trials(deepcopy=False)
    begun = [trial for trial in trials if trial.state != TrialState.WAITING and trial.number >= 0]
    parts.asking.begun = len(begun)
    ended = record.ended(parts.folder)
    for trial in begun:
        entry = ended.get(trial.number)
        if entry:
            _remember(parts, entry)
        if trial.state == TrialState.RUNNING:
            _take_up(parts, ends, trial, entry.result if entry else None)
        elif entry:
            ends.note(entry.result)
        if entry:
            parts.kept.ended(entry.result)
    if parts.asking.waiting.ladder:
        _climb(parts, ends, parts.asking.waiting.ladder)


def _learn(parts: Parts) -> None:
    """Have sampler, pruner and seeds know what an earlier study has taught this one."""
    if lessons := warm.read(parts.folder):
        parts.storage.learnt = taught(lessons.trials, parts.space.suggest)
        for one in lessons.trials:
            parts.repeats.note(one.configuration, one.seed, None)


def _rebuild(parts: Parts, say: Callable[[str], None]) -> None:
    """Have Optuna's database know every trial that has a folder, should it have been lost."""
    known = sum(trial.number >= 0 for trial in parts.study.get_trials(deepcopy=False))
    lost = list(rebuild.missing(parts.folder, known, parts.space.suggest))
    for trial in lost:
        parts.study.add_trial(trial)
    if lost:
        say(f"{parts.folder.database.name} lacked {len(lost)} trials; they were made anew from their folders")


def _remember(parts: Parts, entry: Entry) -> None:
    """Have a configuration that was tried known as such, and as too large where there is not more memory now."""
    parts.repeats.note(entry.configuration, entry.seed, entry.result.number)
    if entry.result.trouble == "oom" and not parts.memory.outgrown(entry.result.gpu_gib):
        parts.repeats.give_up(entry.configuration, entry.result)


def _take_up(parts: Parts, ends: Ends, trial: FrozenTrial, result: TrialResult | None) -> None:
    """Have Optuna know what the folder of a trial knows that is running there; without an end it is handed out."""
    folder = parts.folder.trial(trial.number)
    if job := record.read_config(folder):
        parts.repeats.add(job)
        values = {epoch.number: epoch.value(job.recipe.goal) for epoch in record.history(folder)}
        parts.storage.catch_up(trial._trial_id, values)
    live = Trial(parts.study, trial._trial_id)  # only now: a pruner sees the epochs that Optuna knew when it was made
    if job and job.params.keys() - live.params.keys():
        live = parts.storage.fixed(parts.study, live, job.params)
        parts.space.suggest(live)
    ends.tell(live, result) if result else parts.asking.adoptable.append(live)


def _climb(parts: Parts, ends: Ends, ladder: Ladder) -> None:
    """Tell the ladder what is on record, and pause the open trials that stand at a rung and may not go on."""
    for trial in parts.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
        ladder.learn(trial.number, [value for _, value in sorted(trial.intermediate_values.items())])
        if trial.state == TrialState.PRUNED:
            ladder.retire(trial.number, len(trial.intermediate_values))
    jobs = [(trial, record.read_config(parts.folder.trial(trial.number))) for trial in parts.asking.adoptable]
    standing = [parts.stand(trial, job) for trial, job in jobs if job]
    for one in standing:
        ladder.learn(one.job.trial, one.values)
    for one in standing:
        if parts.asking.waiting.stops(one, last=parts.asking.closing):
            parts.asking.adoptable.remove(one.trial)
            one.report(one.epochs[-1])
            ends.pause(one)
