"""How a study is taken up again: everything that earlier calls left, and kills kept from being written, is mended."""

from sweeper.store import records
from sweeper.store.trial_index import Entry
from sweeper.study.active_trial import ActiveTrial
from sweeper.study.asha import Rungs
from sweeper.study.outcomes import Outcomes
from sweeper.study.state import StudyState


def recover(parts: StudyState, ends: Outcomes) -> None:
    """Take up what earlier calls left: trials that have ended, and those without an end, which are handed out."""
    jobs = (
        records.read_config(folder) for number, folder in records.folders(parts.folder) if number not in parts.ended
    )
    running = [parts.stand(job) for job in jobs if job]
    for entry in parts.ended.values():
        _remember(parts, entry)
        ends.update_best(entry.result)
        parts.kept.ended(entry.result)
    for one in running:
        parts.repeats.add(one.job)
        parts.asking.resumable.append(one.job.trial)
    if parts.asking.waiting.rungs:
        _climb(parts, ends, parts.asking.waiting.rungs, running)


def _remember(parts: StudyState, entry: Entry) -> None:
    """Have a configuration that was tried known as such, and as too large where there is not more memory now."""
    parts.repeats.note(entry.configuration, entry.seed, entry.result.number)
    if entry.result.failure == "oom" and not parts.memory.has_larger_gpu(entry.result.gpu_memory_gib):
        parts.repeats.mark_oom(entry.configuration, entry.result)


def _climb(parts: StudyState, ends: Outcomes, rungs: Rungs, running: list[ActiveTrial]) -> None:
    """Tell the rungs what is on record, and pause the open trials that stand at a rung and may not go on."""
    waiting = parts.asking.waiting
    for number, transferred in enumerate(parts.learnt, -len(parts.learnt)):
        rungs.learn(number, transferred.values)
        waiting.ended(number, transferred.state, len(transferred.values))
    for number, entry in parts.ended.items():
        rungs.learn(number, entry.values)
        waiting.ended(number, entry.result.state, entry.result.epochs)
    for one in running:
        rungs.learn(one.job.trial, one.values)
    for one in running:
        if waiting.pauses(one, last=parts.asking.is_draining):
            parts.asking.resumable.remove(one.job.trial)
            ends.pause(one)
