"""One file for thousands of ended trials: what it says is what the run folders say, whatever happens to it."""

import os

import pytest

from sweeper.store import records, trial_index
from sweeper.store.paths import RunFolder, StudyFolder
from tests.support.records import begin, curve, end, job


@pytest.fixture
def study(tmp_path) -> StudyFolder:
    """Four trials that ended and one that did not."""
    folder = StudyFolder(tmp_path / "question")
    for number in range(5):
        started = begin(job(folder, number))
        epochs = curve(started, 0.5 + number / 10)
        if number < 4:
            end(started, epochs, "PRUNED" if number == 2 else "COMPLETE")
    return folder


def without(study: StudyFolder) -> tuple[list[object], float]:
    """What the run folders alone say."""
    kept = study.trial_index.read_bytes()
    study.trial_index.unlink()
    found = records.results(study), records.seconds(study)
    study.trial_index.write_bytes(kept)
    return found


def test_the_ledger_says_what_the_run_folders_say(study):
    assert sorted(trial_index.read(study)) == [0, 1, 2, 3]
    assert (records.results(study), records.seconds(study)) == without(study)


@pytest.mark.parametrize("damage", ["absent", "torn", "foreign", "short"])
def test_a_damaged_ledger_changes_no_result_and_is_mended_by_the_holder(study, damage):
    expected, kept = without(study)[0], study.trial_index.read_bytes()
    lines = kept.splitlines(keepends=True)
    match damage:
        case "absent":
            study.trial_index.unlink()
        case "torn":
            study.trial_index.write_bytes(kept[:-40])
        case "foreign":
            study.trial_index.write_bytes(b"no json\n" + kept)
        case "short":
            study.trial_index.write_bytes(lines[1] + lines[3])
    assert records.results(study) == expected
    assert sorted(records.ended(study)) == [0, 1, 2, 3]
    assert sorted(study.trial_index.read_bytes().splitlines(keepends=True)) == sorted(lines)


def test_an_end_that_was_torn_off_is_noted_after_the_torn_line(study):
    study.trial_index.write_bytes(study.trial_index.read_bytes()[:-40])
    records.ended(study)
    started = records.read_config(study.trial(4))
    assert started
    end(started, records.history(study.trial(4)), "COMPLETE")
    assert sorted(trial_index.read(study)) == [0, 1, 2, 3, 4]


def test_a_result_that_was_written_anew_is_believed_rather_than_the_ledger(study):
    folder = study.trial(1)
    changed = records.results(study)[1].model_copy(update={"value": 0.125})
    folder.result.write_text(changed.model_dump_json())
    assert records.results(study)[1] == changed
    assert records.ended(study)[1].result == changed


def test_a_trial_whose_end_was_taken_away_has_none(study):
    study.trial(0).result.unlink()
    assert records.results(study)[0].state == "INTERRUPTED"
    assert 0 not in records.ended(study)


def test_a_copied_study_has_its_ledger_made_anew(study):
    for number in range(4):
        os.utime(study.trial(number).result, ns=(1, 1))
    assert trial_index.read(study) == {}
    assert sorted(records.ended(study)) == [0, 1, 2, 3] == sorted(trial_index.read(study))


def test_runs_that_are_no_trials_are_not_in_the_ledger(study):
    final = job(study, 1, kind="final", folder=study.final("2026-01-01-0001").root)
    begin(final)
    before = study.trial_index.read_bytes()
    records.write_result(RunFolder(final.folder), records.results(study)[1])
    assert study.trial_index.read_bytes() == before
