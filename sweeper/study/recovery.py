"""Recovery when a study is opened: restores the state of earlier sessions and completes what kills cut short."""

from sweeper.store import records
from sweeper.store.trial_index import Entry
from sweeper.study.active_trial import ActiveTrial
from sweeper.study.asha import Rungs
from sweeper.study.outcomes import Outcomes
from sweeper.study.state import StudyState
from trainers.metrics.definitions import oriented


def recover(state: StudyState, outcomes: Outcomes) -> None:
    """Restore the trials of earlier sessions: finished ones count, and unfinished ones are queued to resume."""
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
    """Mark a configuration as tried, and as too large if it ran out of memory and no larger GPU is here now."""
    state.seen.note(entry.configuration, entry.seed, entry.result.number)
    if entry.result.failure == "oom" and not state.gpu_memory.has_larger_gpu(entry.result.gpu_memory_gib):
        state.seen.mark_oom(entry.configuration, entry.result)


def _climb(state: StudyState, outcomes: Outcomes, rungs: Rungs, running: list[ActiveTrial]) -> None:
    """Fill the rungs from the record, and pause the open trials that have reached a rung and may not continue."""
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
