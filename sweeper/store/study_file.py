"""The definition of a study when it started, kept in study.json; a resume must match it."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict

from sweeper.errors import EnvironmentFault, UserError
from sweeper.store import jsonfile
from sweeper.store.paths import RunFolder, StudyFolder
from trainers.support.files import write_text

SCHEMA_VERSION = 2
WHOLE = 2  # parts of a fingerprint that cover all images
PENDING = "pending"


class _Open(BaseModel):
    """A document of which some keys are validated; the others are kept as they are."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Identity(_Open):
    """The part of a study's definition that must not change."""

    data: dict[str, Any]
    metric: str
    train: dict[str, Any]


class Limits(_Open):
    """The budget that it started with."""

    trials: int | None = None
    hours: float | None = None


class Written(_Open):
    """The version of the layout of a study's files."""

    schema_version: int = 0


class StudyRecord(_Open):
    """study.json."""

    study: str
    identity: Identity
    fingerprint: str = ""
    budget: Limits = Limits()
    plan: dict[str, Any] = {}
    rules: dict[str, Any] = {}
    searched_hours: float = 0.0
    """The hours within which the search ended and the winner was retrained."""


def same_data(folder: StudyFolder, fingerprint: str, root: str) -> None:
    """Raise UserError if the images, labels or splits have changed since the study started.

    The test split may change, since no result depends on it.
    """
    if not same_fingerprint((read(folder) or {}).get("fingerprint", ""), fingerprint):
        raise UserError(
            f"the images, labels or splits have changed since study '{folder.name}' started",
            where=root,
            help="its results are not comparable with new ones: start another with sweep run ... --new-study NAME",
        )


def same_fingerprint(before: str, now: str) -> bool:
    """True if two fingerprints may be of the same data; only parts that both have are compared.

    The first parts cover all images, the others those of train and val. If both have the latter, only these count.
    """
    parts = before.split("-"), now.split("-")
    start = WHOLE if all(len(each) > WHOLE for each in parts) else 0
    return all(a == b for a, b in zip(*(each[start:] for each in parts), strict=False) if a and b)


def note_test(folder: RunFolder, fingerprint: str) -> None:
    """Record the test images of the predictions in a final model's folder; PENDING before they are made."""
    write_text(folder.test_images, fingerprint + "\n")


def is_pending(folder: RunFolder) -> bool:
    """True if a final model has started to predict changed test images and has not finished."""
    return folder.test_images.exists() and folder.test_images.read_text().strip() == PENDING


def predicts(folder: RunFolder, whole: str, test: str) -> bool:
    """True if the predictions in a final model's folder are of the test images with the fingerprint `test`.

    An older final model has no record of this; then they are if its study started with the same data as `whole`.
    """
    if folder.test_images.exists():
        return same_fingerprint(folder.test_images.read_text().strip(), test)
    before = (read(folder.study) or {}).get("fingerprint", "").split("-")
    return same_fingerprint("-".join(before[:WHOLE]), "-".join(whole.split("-")[:WHOLE]))


def read(folder: StudyFolder) -> dict[str, Any] | None:
    """Return the document of the study in `folder`, or None before it has started."""
    try:
        written = jsonfile.read(folder.study_file, Written)
        if written and written.schema_version != SCHEMA_VERSION:
            raise _of_another_version(folder, written.schema_version)
        found = jsonfile.read(folder.study_file, StudyRecord)
    except EnvironmentFault as error:
        raise EnvironmentFault(
            "this file is damaged: it no longer holds the definition that the study started with",
            where=str(folder.study_file),
            help=f"restore it from a copy, or remove it if {folder.space.name} beside it is still the original",
        ) from error
    return found.model_dump(exclude_unset=True) if found else None


def identity(folder: StudyFolder) -> dict[str, Any]:
    """Return the identity of the study (data, metric, train and so on); empty before it has started."""
    found: dict[str, Any] = (read(folder) or {}).get("identity", {})
    return found


def end_search(folder: StudyFolder, hours: float) -> None:
    """Record that the search has ended in a budget of `hours`, of which the rest is for retraining the winner."""
    write_text(folder.study_file, json.dumps((read(folder) or {}) | {"searched_hours": hours}, indent=1) + "\n")


def searched_hours(folder: StudyFolder) -> float:
    """Return the hours in which the search has ended; 0 if it continues, or if no retraining followed it."""
    return float((read(folder) or {}).get("searched_hours", 0.0))


def is_current(folder: StudyFolder) -> bool:
    """True if this version of sweep can read the study in `folder`, or it is damaged, so that it gets reported."""
    try:
        read(folder)
    except EnvironmentFault:
        return True
    except UserError:
        return False
    return True


def _of_another_version(folder: StudyFolder, version: int) -> UserError:
    other = "an earlier" if version < SCHEMA_VERSION else "a later"
    return UserError(
        f"study '{folder.name}' was made by {other} version of sweep, and this one cannot read it",
        where=str(folder.root),
        help="use that version, or move the folder away: the same command starts the study from scratch",
    )
