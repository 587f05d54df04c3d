"""Warm start: transfers the trials of an earlier study that lie in the space of a new one, in transfer.json."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import ValidationError

from sweeper.errors import EnvironmentFault
from sweeper.space.compare import difference
from sweeper.space.inside import NotInSpace
from sweeper.space.space import Space
from sweeper.space.spec import StudySpec
from sweeper.store import records, study_file
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.store.trial_index import digest
from sweeper.trial import Job, Message, TrialResult
from trainers.support import files


class TransferredTrial(Message):
    """A trial of another study in the parameters of this one: information for sampler and pruner, not a result."""

    number: int
    state: Literal["COMPLETE", "PRUNED"]
    params: dict[str, Any]
    value: float | None
    values: tuple[float, ...]  # the metric after each epoch
    configuration: str  # digest of the recipe without its seed
    seed: int


class Transfer(Message):
    """The trials transferred from another study, out of the `of` trials that had finished there."""

    schema_version: Literal[1] = 1
    study: str
    of: int
    trials: tuple[TransferredTrial, ...]


def warm_start(
    spec: StudySpec, space: Space, folder: StudyFolder, source: StudyFolder, fingerprint: str
) -> Iterator[str]:
    """Transfer trials of `source` before the study in `folder` starts; yield the lines to print about it.

    A trial is transferred if parameters of the new space give exactly its recipe, on the same data and for the same
    metric. A value that was fixed and is open now, or the reverse, need only match. Results on other data, for
    another metric or after other epochs would not be comparable.
    """
    before = study_file.read(source)
    if before is None:
        return
    yield from _changes(before, spec, space, source)
    ended = _ended(source)
    if reason := _apart(before, spec, fingerprint):
        yield f"nothing learnt from {source.name}: {reason}"
        ended = []
    taken, left = _sorted(ended, space)
    files.write_text(
        folder.transfer, Transfer(study=source.name, of=len(ended), trials=tuple(taken)).model_dump_json() + "\n"
    )
    if not reason:
        yield _summary(source.name, taken, left)


def read(folder: StudyFolder) -> Transfer | None:
    """Return the trials transferred to the study in `folder` when it started, or None."""
    try:
        return Transfer.model_validate_json(folder.transfer.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise EnvironmentFault(
            "this file is damaged, or was written by another version of sweep",
            where=str(folder.transfer),
            help="remove it; the study then continues without the trials of the other one",
        ) from error


def _changes(before: Mapping[str, Any], spec: StudySpec, space: Space, source: StudyFolder) -> Iterator[str]:
    lines = difference(before["identity"], json.loads(json.dumps(space.identity())))
    if lines:
        yield f"{spec.source.name} no longer matches study '{source.name}':"
        yield from (f"  {line}" for line in lines)


def _apart(before: Mapping[str, Any], spec: StudySpec, fingerprint: str) -> str:
    """Return why no value of the earlier study is comparable with values of this one; empty if they are."""
    asked, mine = before["identity"], spec.data.model_dump(mode="json")
    if asked["metric"] != spec.metric:
        return f"its metric was {asked['metric']}, not {spec.metric}"
    if asked.get("minimize", False) != spec.minimize:
        return f"its {spec.metric} was {'maximized' if spec.minimize else 'minimized'}"
    if (folds := asked.get("search", {}).get("folds")) != spec.search.folds:
        return f"its trials were judged {_judging(folds)}, not {_judging(spec.search.folds)}"
    files = asked.get("extensions", {})
    changed = [one.name for one in spec.extensions if files.get(one.name, one.checksum) != one.checksum]
    if changed:
        return f"its {changed[0]} was different, so its results may not be comparable"
    if not study_file.same_fingerprint(before.get("fingerprint", ""), fingerprint):
        return "its images, labels or splits were different"
    where = {"root": mine["root"]}  # the same data at another path are the same
    lines = difference({**asked["data"], **where}, mine, "data")
    return lines[0] if lines else ""


def _judging(folds: int | None) -> str:
    return f"in {folds} folds" if folds else "on val"


def _ended(source: StudyFolder) -> list[tuple[Job, TrialResult, RunFolder]]:
    """Return the trials with meaningful values, completed or pruned, by number."""
    found = []
    for _, folder in records.folders(source):
        result, job = records.read_result(folder), records.read_config(folder)
        if result and job and result.state in ("COMPLETE", "PRUNED"):
            found.append((job, result, folder))
    return found


def _sorted(
    ended: list[tuple[Job, TrialResult, RunFolder]], space: Space
) -> tuple[list[TransferredTrial], list[str]]:
    """Return the transferred trials, and the reason for each of the others."""
    taken: list[TransferredTrial] = []
    left: list[str] = []
    for job, result, folder in ended:
        try:
            params = space.params(job.recipe.train)
        except NotInSpace as why:
            left.append(str(why))
            continue
        values = tuple(epoch.value(job.recipe.metric) for epoch in records.history(folder))
        taken.append(
            TransferredTrial(
                number=result.number,
                state="COMPLETE" if result.state == "COMPLETE" else "PRUNED",
                params=params,
                value=result.value,
                values=values,
                configuration=digest(job.recipe),
                seed=job.recipe.train.seed,
            )
        )
    return taken, left


def _summary(name: str, taken: list[TransferredTrial], left: list[str]) -> str:
    count = len(taken) + len(left)
    if not count:
        return f"nothing learnt from {name}: none of its trials has finished"
    text = f"learnt from {len(taken)} of {count} trials of {name}"
    outside = "1 lies" if len(left) == 1 else f"{len(left)} lie"
    return f"{text}; {outside} outside the new space ({left[0]})" if left else text
