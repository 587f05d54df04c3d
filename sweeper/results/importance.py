"""What mattered: how much each open value of a study had to do with its best trials."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from sweeper.space.compare import opened
from sweeper.store import importance as store
from sweeper.store import study_file
from sweeper.store.importance import MIN_TRIALS, Importance, Share
from sweeper.store.paths import StudyFolder
from sweeper.store.ranking import parameter_names
from sweeper.trial import TrialResult
from trainers.support import files

METHOD = 3
"""Another number whenever shares come to be computed in another way, so that kept ones are computed again."""


def importance(study: StudyFolder, results: Sequence[TrialResult]) -> Importance | None:
    """That of `results`, from importance.json where it is of the same; None where fewer than two values were open."""
    asked = opened(study_file.identity(study).get("train"))
    if len(asked) < 2:
        return None
    counted = [one for one in results if one.state in ("COMPLETE", "PRUNED")]
    record = _checksum(counted, asked)
    kept = store.read(study)
    return kept if kept and kept.record == record else _computed(study, counted, asked, record)


def _checksum(results: Sequence[TrialResult], asked: dict[str, Any]) -> str:
    lines = [json.dumps([asked, MIN_TRIALS, METHOD], sort_keys=True), *(one.model_dump_json() for one in results)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _computed(study: StudyFolder, counted: Sequence[TrialResult], asked: dict[str, Any], record: str) -> Importance:
    pruned = sum(one.state == "PRUNED" for one in counted)
    made = Importance(record=record, completed=len(counted) - pruned, pruned=pruned)
    if made.is_enough:
        from sweeper.search import importance

        found, labels = importance.shares(counted, asked), parameter_names(asked)
        shares = tuple(
            Share(name=name, share=one.share, error=one.error, short=labels[name]) for name, one in found.items()
        )
        made = made.model_copy(update={"shares": shares})
    with suppress(OSError):  # on a full disk, or where one may only read, it is computed again the next time
        files.write_text(study.importance, made.model_dump_json(indent=1) + "\n")
    return made
