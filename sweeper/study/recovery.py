"""How a study is taken up again: everything that earlier calls left, and kills kept from being written, is mended."""

from sweeper.store import records
from sweeper.store.trial_index import Entry
from sweeper.study.active_trial import ActiveTrial
from sweeper.study.asha import Rungs
from sweeper.study.outcomes import Outcomes
from sweeper.study.state import StudyState
from trainers.metrics.definitions import oriented


def recover(state: StudyState, outcomes: Outcomes) -> None:
    """Take up what earlier calls left: trials that have ended, and those without an end, which are handed out."""
    jobs = (
        records.read_config(folder) for number, folder in records.folders(state.folder) if number not in state.ended
    )
    running = [state.active_trial(job) for job in jobs if job]
    for entry in state.ended.values():
        _remember(state, entry)
        outcomes.update_best(entry.result)
        state.retention.ended(entry.result)
    for one in running:
        state.seen.add(one.job)
        state.queue.resumable.append(one.job.trial)
    if state.queue.asha.rungs:
        _climb(state, outcomes, state.queue.asha.rungs, running)


def _remember(state: StudyState, entry: Entry) -> None:
    """Have a configuration that was tried known as such, and as too large where there is not more memory now."""
    state.seen.note(entry.configuration, entry.seed, entry.result.number)
    if entry.result.failure == "oom" and not state.gpu_memory.has_larger_gpu(entry.result.gpu_memory_gib):
        state.seen.mark_oom(entry.configuration, entry.result)


def _climb(state: StudyState, outcomes: Outcomes, rungs: Rungs, running: list[ActiveTrial]) -> None:
    """Tell the rungs what is on record, and pause the open trials that stand at a rung and may not go on."""
    asha, minimize = state.queue.asha, state.spec.minimize
    for number, transferred in enumerate(state.learnt, -len(state.learnt)):
        rungs.learn(number, [oriented(value, minimize=minimize) for value in transferred.values])
        asha.ended(number, transferred.state, len(transferred.values))
    for number, entry in state.ended.items():
        rungs.learn(number, [oriented(value, minimize=minimize) for value in entry.values])
        asha.ended(number, entry.result.state, entry.result.epochs)
    for one in running:
        rungs.learn(one.job.trial, one.values)
    for one in running:
        if asha.pauses(one, last=state.queue.is_draining):
            state.queue.resumable.remove(one.job.trial)
            outcomes.pause(one)
