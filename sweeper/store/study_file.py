"""What a study asked when it began, kept in study.json; a resume must ask the same."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from sweeper.errors import EnvironmentFault, UserError
from sweeper.store import jsonfile
from sweeper.store.paths import RunFolder, StudyFolder
from trainers.support.files import write_text

SCHEMA_VERSION = 2
WHOLE = 2  # parts of a fingerprint that are of all images
PENDING = "pending"


class _Open(BaseModel):
    """Some of the keys are judged; the others are kept as they are."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Identity(_Open):
    """What makes the study the one it is."""

    data: dict[str, Any]
    metric: str
    train: dict[str, Any]


class Limits(_Open):
    """The budget that it began with."""

    trials: int | None = None
    hours: float | None = None


class Written(_Open):
    """The version of the layout that a study's files have."""

    schema_version: int = 0


class StudyRecord(_Open):
    """study.json."""

    study: str
    identity: Identity
    fingerprint: str = ""
    budget: Limits = Limits()
    plan: dict[str, Any] = {}
    rules: dict[str, Any] = {}


def same_data(folder: StudyFolder, fingerprint: str, root: str) -> None:
    """Raise UserError where the study began on other images, labels or splits than those that are there now.

    Test may be another: no result depends on it.
    """
    if not same_fingerprint((read(folder) or {}).get("fingerprint", ""), fingerprint):
        raise UserError(
            f"the images, labels or splits are not those that study '{folder.name}' began with",
            where=root,
            help="its results cannot be compared with new ones: begin another with sweep run ... --new-study NAME",
        )


def same_fingerprint(before: str, now: str) -> bool:
    """Whether two fingerprints may be of the same data; of one that says less, as far as it says something.

    Each is of all images, and then of those of train and val: where both say that, it alone counts.
    """
    parts = before.split("-"), now.split("-")
    start = WHOLE if all(len(each) > WHOLE for each in parts) else 0
    return all(a == b for a, b in zip(*(each[start:] for each in parts), strict=False) if a and b)


def note_test(folder: RunFolder, fingerprint: str) -> None:
    """Put down which test images the predictions in a final's folder are of; PENDING before they are made."""
    write_text(folder.test_images, fingerprint + "\n")


def is_pending(folder: RunFolder) -> bool:
    """Whether a final has begun to predict changed test images, and has not ended."""
    return folder.test_images.exists() and folder.test_images.read_text().strip() == PENDING


def predicts(folder: RunFolder, whole: str, test: str) -> bool:
    """Whether the predictions in a final's folder are of the test images with the fingerprint `test`.

    A final of before says nothing: then of those with which its study began, if `whole` is of the same.
    """
    if folder.test_images.exists():
        return same_fingerprint(folder.test_images.read_text().strip(), test)
    before = (read(folder.study) or {}).get("fingerprint", "").split("-")
    return same_fingerprint("-".join(before[:WHOLE]), "-".join(whole.split("-")[:WHOLE]))


def read(folder: StudyFolder) -> dict[str, Any] | None:
    """The document of the study in `folder`, or None before it began."""
    try:
        written = jsonfile.read(folder.study_file, Written)
        if written and written.schema_version != SCHEMA_VERSION:
            raise _of_another_version(folder, written.schema_version)
        found = jsonfile.read(folder.study_file, StudyRecord)
    except EnvironmentFault as error:
        raise EnvironmentFault(
            "this file is damaged: it does not say what the study asked when it began",
            where=str(folder.study_file),
            help=f"restore it from a copy, or remove it if {folder.space.name} beside it is as the study began",
        ) from error
    return found.model_dump(exclude_unset=True) if found else None


def identity(folder: StudyFolder) -> dict[str, Any]:
    """What makes the study the one it is: data, metric, train and the like; empty before it began."""
    found: dict[str, Any] = (read(folder) or {}).get("identity", {})
    return found


def is_current(folder: StudyFolder) -> bool:
    """Whether this version of sweep reads the study in `folder`; a damaged one is, to be named."""
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
        f"study '{folder.name}' was made by {other} version of sweep, and this one does not read it",
        where=str(folder.root),
        help="use that version, or move the folder away: the same command starts the study from scratch",
    )
