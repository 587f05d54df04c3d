"""What a study asked when it began, kept in study.json; a resume must ask the same."""

import json
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from sweeper.errors import EnvironmentFault, UserError
from sweeper.space.compare import difference
from sweeper.space.space import Space
from sweeper.space.spec import StudySpec
from sweeper.store import jsonfile
from sweeper.store.paths import StudyFolder
from trainers.epoch import Goal
from trainers.support import files


class _Open(BaseModel):
    """Some of the keys are judged; the others are kept as they are."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Identity(_Open):
    """What makes the study the one it is."""

    data: dict[str, Any]
    goal: Goal
    train: dict[str, Any]


class Limits(_Open):
    """The budget that it began with."""

    trials: int | None = None
    hours: float | None = None


class Asked(_Open):
    """study.json."""

    study: str
    identity: Identity
    fingerprint: str = ""
    budget: Limits = Limits()


@dataclass(frozen=True)
class Definition:
    """What a study is defined by: its file, the search space in it, its folder, and the fingerprint of its images,
    labels and splits.
    """

    spec: StudySpec
    space: Space
    folder: StudyFolder
    fingerprint: str = ""


def settle(study: Definition) -> None:
    """Write down what the study asks, or compare it with what it asked before.

    Budget, sampler, pruner and how much is kept may change. Raises UserError with one line a difference in anything
    else, and where the data's fingerprint is another than it was.
    """
    spec, space, folder, fingerprint = study.spec, study.space, study.folder, study.fingerprint
    asked: dict[str, Any] = json.loads(json.dumps(space.identity()))
    before = read(folder)
    if before and (lines := difference(before["identity"], asked)):
        raise UserError(
            "\n  ".join([f"{spec.source.name} no longer asks what study '{folder.name}' asked:", *lines]),
            where=str(spec.source),
            help="begin another study, which learns from the trials that still fit, with --new-study NAME; "
            f"or restore the file from {folder.space}",
        )
    same_data(folder, fingerprint, spec.data.root)
    document = {
        "schema_version": 1,
        "study": spec.study,
        "identity": asked,
        "fingerprint": fingerprint,
        "budget": spec.budget.model_dump(mode="json"),
        "search": spec.search.model_dump(mode="json"),
        "keep": spec.keep,
    }
    files.write_text(folder.space, spec.text)
    files.write_text(folder.spec, json.dumps(document, indent=1) + "\n")


def same_data(folder: StudyFolder, fingerprint: str, root: str) -> None:
    """Raise UserError where the study began on other images, labels or splits than those that are there now."""
    if not alike((read(folder) or {}).get("fingerprint", ""), fingerprint):
        raise UserError(
            f"the images, labels or splits are not those that study '{folder.name}' began with",
            where=root,
            help="its results cannot be compared with new ones: begin another with sweep run ... --new-study NAME",
        )


def alike(before: str, now: str) -> bool:
    """Whether two fingerprints may be of the same data; of one that says less, as far as it says something."""
    return all(a == b for a, b in zip(before.split("-"), now.split("-"), strict=False) if a and b)


def read(folder: StudyFolder) -> dict[str, Any] | None:
    """The document of the study in `folder`, or None before it began; `identity` has data, goal and train."""
    try:
        found = jsonfile.read(folder.spec, Asked)
    except EnvironmentFault as error:
        raise EnvironmentFault(
            "this file is damaged: it does not say what the study asked when it began",
            where=str(folder.spec),
            help=f"restore it from a copy, or remove it if {folder.space.name} beside it is as the study began",
        ) from error
    return found.model_dump(exclude_unset=True) if found else None
