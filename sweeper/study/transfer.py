"""Warm start: the trials of an earlier study that lie in the space of a new one, kept in transfer.json."""

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
    """A trial of another study in the words of this one: knowledge for sampler and pruner, no result."""

    number: int
    state: Literal["COMPLETE", "PRUNED"]
    params: dict[str, Any]
    value: float | None
    values: tuple[float, ...]  # the metric after each epoch
    configuration: str  # digest of the recipe without its seed
    seed: int


class Transfer(Message):
    """All that a study has learnt from another; `of` so many that had ended there."""

    schema_version: Literal[1] = 1
    study: str
    of: int
    trials: tuple[TransferredTrial, ...]


def warm_start(
    spec: StudySpec, space: Space, folder: StudyFolder, source: StudyFolder, fingerprint: str
) -> Iterator[str]:
    """Learn what `source` has to teach, before the study in `folder` begins; yields what there is to say of it.

    A trial is taken where some parameters of the new space give exactly its recipe, on the same data and for the
    same metric: so whatever was closed and is open now, or the other way round, is judged by its value. Values on
    other data, for another metric or after other epochs would not be comparable.
    """
    before = study_file.read(source)
    if before is None:
        return
    yield from _changes(before, spec, space, source)
    ended = _ended(source)
    if reason := _apart(before, spec, fingerprint):
        yield f"nothing is learnt from {source.name}: {reason}"
        ended = []
    taken, left = _sorted(ended, space)
    files.write_text(
        folder.transfer, Transfer(study=source.name, of=len(ended), trials=tuple(taken)).model_dump_json() + "\n"
    )
    if not reason:
        yield _said(source.name, taken, left)


def read(folder: StudyFolder) -> Transfer | None:
    """What the study in `folder` learnt when it began, or None."""
    try:
        return Transfer.model_validate_json(folder.transfer.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise EnvironmentFault(
            "this file is damaged, or of another version of sweep",
            where=str(folder.transfer),
            help="remove it: then the study continues without the trials of the other one",
        ) from error


def _changes(before: Mapping[str, Any], spec: StudySpec, space: Space, source: StudyFolder) -> Iterator[str]:
    lines = difference(before["identity"], json.loads(json.dumps(space.identity())))
    if lines:
        yield f"{spec.source.name} no longer asks what study '{source.name}' asked:"
        yield from (f"  {line}" for line in lines)


def _apart(before: Mapping[str, Any], spec: StudySpec, fingerprint: str) -> str:
    """Why no value of a study can be compared with values of this one, or nothing."""
    asked, mine = before["identity"], spec.data.model_dump(mode="json")
    if asked["metric"] != spec.metric:
        return f"its metric was {asked['metric']}, not {spec.metric}"
    if asked.get("minimize", False) != spec.minimize:
        return f"more of its {spec.metric} was {'better' if spec.minimize else 'worse'}"
    if (folds := asked.get("search", {}).get("folds")) != spec.search.folds:
        return f"its trials were judged {_judging(folds)}, not {_judging(spec.search.folds)}"
    files = asked.get("extensions", {})
    changed = [one.name for one in spec.extensions if files.get(one.name, one.checksum) != one.checksum]
    if changed:
        return f"its {changed[0]} was another: what the file defines may have other values now"
    if not study_file.same_fingerprint(before.get("fingerprint", ""), fingerprint):
        return "its images, labels or splits were others"
    where = {"root": mine["root"]}  # the same data at another place are the same
    lines = difference({**asked["data"], **where}, mine, "data")
    return lines[0] if lines else ""


def _judging(folds: int | None) -> str:
    return f"in {folds} folds" if folds else "on val"


def _ended(source: StudyFolder) -> list[tuple[Job, TrialResult, RunFolder]]:
    """The trials whose values say something, by number."""
    found = []
    for _, folder in records.folders(source):
        result, job = records.read_result(folder), records.read_config(folder)
        if result and job and result.state in ("COMPLETE", "PRUNED"):
            found.append((job, result, folder))
    return found


def _sorted(
    ended: list[tuple[Job, TrialResult, RunFolder]], space: Space
) -> tuple[list[TransferredTrial], list[str]]:
    """The transferred trials, and why each of the others is none."""
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


def _said(name: str, taken: list[TransferredTrial], left: list[str]) -> str:
    count = len(taken) + len(left)
    if not count:
        return f"nothing is learnt from {name}: no trial of it has ended"
    text = f"learnt from {len(taken)} of {count} trials of {name}"
    return f"{text}; {len(left)} lie outside the new space ({left[0]})" if left else text
