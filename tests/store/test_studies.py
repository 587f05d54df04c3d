"""Final models in the order in which they were made, what boards said of them, and submissions that are equal."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sweeper.results import columns
from sweeper.store import records, studies
from sweeper.store.paths import RunFolder, StudyFolder
from tests.support.records import begin, curve, end, epoch, job


@pytest.fixture
def study() -> StudyFolder:
    return begun("focal")


def begun(name: str) -> StudyFolder:
    study = StudyFolder.named(name)
    study.root.mkdir(parents=True)
    asked = {"schema_version": 2, "study": name, "identity": {"metric": "overall_accuracy", "data": {}, "train": {}}}
    study.study_file.write_text(json.dumps(asked))
    return study


def final(study: StudyFolder, name: str, number: int, time: float, body: bytes = b"") -> RunFolder:
    """A retraining of trial `number`, whose first epoch ended at `time`."""
    started = begin(job(study, number, kind="final", folder=study.final(name).root))
    folder = RunFolder(started.folder)
    records.append(folder, epoch(0, 0.5, time=time))
    end(started, records.history(folder), "COMPLETE")
    if body:
        folder.submission.write_bytes(body)
    return folder


def test_finals_are_numbered_in_the_order_in_which_they_were_made_whatever_they_are_called(study):
    first = final(study, "2026-11-21-0007", 7, 100.0)
    second = final(study, "2026-11-21-0003", 3, 200.0)
    third = final(study, "2026-11-21-0003-2", 3, 300.0)
    assert [(one.number, one.folder) for one in studies.finals(study)] == [(1, first), (2, second), (3, third)]
    assert studies.note_score("focal", 0.5, "") == third


def test_a_final_that_has_just_begun_is_the_last(study):
    begin(job(study, 1, kind="final", folder=study.final("2026-01-01-0001").root))
    final(study, "2026-11-21-0007", 7, 100.0)
    assert [one.trial for one in studies.finals(study)] == [7, 1]


def test_equal_submissions_are_found_in_every_study(study):
    one = final(study, "2026-11-21-0001", 1, 100.0, b"the same")
    final(study, "2026-11-22-0002", 2, 200.0, b"another!")
    final(begun("other"), "2026-11-22-0000", 0, 300.0, b"the same")
    assert [same.name for same in studies.same_submissions(one)] == ["final 1 of other"]
    studies.note_score(str(one.root), 0.75, "")
    assert [same.name for same in studies.same_submissions(StudyFolder.named("other").final("2026-11-22-0000"))] == [
        "final 1 of focal (scored 0.75)"
    ]
    assert studies.same_submissions(study.final("2026-11-22-0002")) == []


def test_a_final_without_a_submission_equals_no_other(study):
    one = final(study, "2026-11-21-0001", 1, 100.0)
    final(study, "2026-11-22-0002", 2, 200.0)
    assert studies.same_submissions(one) == []


def test_the_ledger_has_a_row_for_each_score(study):
    trial = begin(job(study, 7))
    end(trial, curve(trial), "COMPLETE")
    folder = final(study, "2026-11-21-0007", 7, 100.0)
    folder.test_scores.write_text(epoch(0, 0.61).val.model_dump_json())  # type: ignore[union-attr]
    begin(job(study, 8, kind="final", folder=study.final("2026-11-22-0008").root))
    for value in (0.71, 0.72):
        studies.note_score(str(folder.root), value, "board")
    board = columns.ledger(studies.status_of(study))
    assert board.rows == [
        ["1", "7", "0.7602", "0.6100", "0.71", "board"],
        ["1", "7", "0.7602", "0.6100", "0.72", "board"],
        ["2", "8", "-", "-", "not finished", ""],
    ]


def test_a_study_that_is_removed_while_studies_are_listed_is_left_out():
    kept, going = begun("kept"), begun("going")
    document, listed = going.study_file.read_text(), threading.Event()

    def come_and_go() -> None:
        while not listed.is_set():
            going.study_file.unlink()
            going.study_file.write_text(document)

    with ThreadPoolExecutor(1) as other:
        restless = other.submit(come_and_go)
        try:
            found = [studies.studies() for _ in range(100)]
        finally:
            listed.set()
        restless.result()
    assert all(kept in there for there in found)
