"""How things stand, told from the folders alone."""

from pathlib import Path

import pytest

from sweeper.commands import doctor
from sweeper.errors import UserError
from sweeper.results import status
from sweeper.space import starter
from sweeper.store import lock, records, studies, study_file
from sweeper.store.paths import RunFolder, StudyFolder, database
from sweeper.trial import Ensemble, EnsembleMember
from tests.support.records import begin, curve, end, job

IDENTITY = """{"schema_version": 2, "study": "focal",
"identity": {"data": {}, "metric": "overall_accuracy", "train": {}},
"budget": {"trials": %s, "hours": null}}"""


def study(name: str = "focal", *, planned: int = 3, trials: int = 2) -> StudyFolder:
    """A study with `trials` completed trials of `planned`."""
    made = StudyFolder.named(name)
    made.root.mkdir(parents=True)
    made.study_file.write_text(IDENTITY % planned)
    for number in range(trials):
        one = begin(job(made, number))
        end(one, curve(one, 0.5 + number / 10), "COMPLETE")
    return made


def test_a_study_with_trials_to_go_is_interrupted_and_its_next_command_resumes_it():
    one = studies.status_of(made := study())
    made.resume_command.write_text("sweep run space.yaml --set 'a=b c'\n")
    assert one.state == "INTERRUPTED"
    assert status.next_command(studies.status_of(made)) == "sweep run space.yaml --set 'a=b c'"


def test_a_study_whose_budget_is_used_up_is_complete_and_wants_a_submission():
    one = studies.status_of(study(planned=2))
    assert one.state == "COMPLETE"
    assert status.next_command(one) == "sweep best focal --export submission"


@pytest.mark.parametrize(("planned", "said"), [(1, "4 of 4 trials"), (6, "4 of 6 trials")])
def test_no_more_trials_have_started_than_are_planned_though_the_budget_may_have_shrunk(planned, said):
    found = studies.status_of(study(planned=planned, trials=4))
    assert f"{said} started" in next(status.status(found))
    assert said.replace(" of ", "/") in next(status.here())


def test_the_best_value_has_its_standard_error_beside_it():
    made = study(planned=3)
    one = begin(job(made, 2))
    end(one, curve(one, 0.9), "COMPLETE", standard_errors={"overall_accuracy": 0.0123, "macro_f1": 0.5})
    found = studies.status_of(made)
    (line,) = [line for line in status.status(found) if line.startswith("best")]
    assert f"overall_accuracy {found.best.value:.4f} ±0.0123, trial 2" in line
    assert len(line) < 80
    assert status.document(found)["best"]["standard_errors"] == {"overall_accuracy": 0.0123, "macro_f1": 0.5}


@pytest.mark.parametrize(
    ("packed", "command"), [(True, "sweep score focal VALUE"), (False, "sweep predict focal IMAGES")]
)
def test_a_final_model_wants_a_score_if_there_is_something_to_score(packed, command):
    made = study(planned=2)
    final = begin(job(made, 1, kind="final", folder=made.final("2026-11-21-0001").root))
    end(final, curve(final), "COMPLETE")
    if packed:
        studies.status_of(made).finals[0].folder.submission.touch()
    assert status.next_command(studies.status_of(made)) == command


def test_a_final_whose_test_images_have_changed_is_packed_first():
    made = study(trials=3)
    final = begin(job(made, 2, kind="final", folder=made.final("2026-11-21-0002").root))
    end(final, curve(final), "COMPLETE")
    studies.status_of(made).finals[0].folder.submission.touch()
    assert status.next_command(studies.status_of(made)) == "sweep score focal VALUE"
    study_file.note_test(RunFolder(final.folder), study_file.PENDING)  # a kill while it predicted them
    one = studies.status_of(made)
    assert status.next_command(one) == "sweep best focal --export submission"
    assert any("(not finished)" in line for line in status.status(one))


def test_a_study_that_is_held_is_running_and_says_by_whom():
    made = study()
    held = lock.acquire(made.lock)
    one = studies.status_of(made)
    held.release()
    assert one.state == "RUNNING"
    assert any(line.startswith("held by  process") for line in status.status(one))


def test_a_study_without_a_remembered_command_is_resumed_from_its_own_copy(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert studies.resume_command(study()) == "sweep run mlruns/studies/focal/space.yaml --set study=focal"


def test_the_last_study_is_meant_where_none_is_named():
    study("older")
    newer = study("newer")
    newer.study_file.touch()
    assert studies.find(None) == newer
    assert studies.find("older").name == "older"


def test_a_misspelt_study_is_answered_with_the_right_one():
    study()
    with pytest.raises(UserError) as caught:
        studies.find("fokal")
    assert caught.value.help == "did you mean 'focal'?"


@pytest.mark.parametrize("name", ["..", "../focal", "/etc", ""])
def test_a_name_that_leads_elsewhere_is_no_study(name):
    study()
    with pytest.raises(UserError, match="no study"):
        studies.find(name)


def test_an_empty_folder_has_no_study():
    with pytest.raises(UserError, match="there is no study yet"):
        studies.find(None)


def test_the_first_command_is_found_without_executing_an_extension_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status.SPACES.mkdir()
    (status.SPACES / "own.py").write_text("raise SystemExit('executed')\n")
    (status.SPACES / "space.yaml").write_text(
        "extensions: [own.py]\ndata: {layout: mine, root: photos}\nmetric: other\ntrain: {backbone: resnet18}\n"
    )
    assert [*status.here()][-1] == "next: sweep run search_spaces/space.yaml"


def test_a_search_space_that_init_wrote_here_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.yaml").write_text("# some comment\nservices: {}\n")
    (tmp_path / "folder.yaml").mkdir()
    assert [*status.here()][-1].startswith("next: sweep run PHOTOS")
    head = f"# yaml-language-server: $schema=x\n{starter.MARK}0); edit it freely.\n"
    (tmp_path / "photos.yaml").write_text(f"{head}data: {{layout: folder, root: photos}}\n")
    assert [*status.here()][-1] == "next: sweep run photos.yaml"


def test_a_score_needs_a_finished_submission(tmp_path):
    study()
    with pytest.raises(UserError, match="has no submission yet"):
        studies.note_score("focal", 0.8, "")
    with pytest.raises(UserError, match="not a submission of a study"):
        studies.note_score(str(tmp_path), 0.8, "")


# ------------------------------------------------------------------------------------------ doctor
def test_a_hub_out_of_reach_is_a_warning_with_the_ways_out(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for name in ("HTTPS_PROXY", "https_proxy", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    finding = doctor.hub(2.0)
    assert not finding.ok
    assert "pretrained: false" in finding.help


def test_a_login_of_a_proxy_is_not_told(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert "secret" not in str(doctor.hub(2.0))


def test_offline_by_choice_is_well(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert doctor.hub(2.0).ok


def test_a_broken_mlflow_database_is_told_with_its_remedy():
    database().parent.mkdir(parents=True)
    database().write_bytes(b"no database")
    finding = doctor.mlflow(database())
    assert not finding.ok
    assert "run folders" in finding.help


def test_no_mlflow_database_is_well(tmp_path: Path):
    assert doctor.mlflow(tmp_path / "mlflow.db").ok


MADE_UP = """
import torch
torch.cuda.is_available, torch.cuda.device_count = lambda: True, lambda: {count}
torch.cuda.get_device_name, torch.cuda.get_device_capability = lambda i: "Made Up", lambda i: {capabilities}[i]
torch.cuda.get_arch_list = lambda: {archs}
"""


@pytest.mark.process
@pytest.mark.parametrize(
    ("archs", "gpus"),
    [
        (["sm_80", "sm_90", "compute_120"], {(9, 0): True, (13, 0): True}),  # 13.0: the driver compiles it
        (["sm_75", "sm_86", "sm_90a"], {(8, 9): True, (6, 0): False, (9, 1): False}),  # sm_90a: for one chip alone
    ],
)
def test_the_doctor_judges_a_gpu_as_the_preflight_does(tmp_path, monkeypatch, archs, gpus):
    made_up = MADE_UP.format(count=len(gpus), capabilities=list(gpus), archs=archs)
    (tmp_path / "sitecustomize.py").write_text(made_up)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    findings = list(doctor.devices())
    assert [(one.name, one.ok) for one in findings] == [(f"cuda:{n}", runs) for n, runs in enumerate(gpus.values())]
    for finding, (capability, runs) in zip(findings, gpus.items(), strict=True):
        assert "Made Up" in finding.text
        assert "{}.{}".format(*capability) in finding.text
        assert ("torch build that supports it" in finding.help) is not runs


# ------------------------------------------------------------------------------------------ the hours
@pytest.mark.parametrize(
    ("swept", "final", "words"),
    [
        (5400.0, 1140.0, "retraining 19m, between trials 1h30m, unused 11m"),
        (6600.0, 900.0, "retraining 15m, between trials 1h50m, 5m late"),
        (5400.0, None, "retraining 12s, between trials 1h30m, unused 30m"),
    ],
)
def test_the_hours_are_accounted_for(swept, final, words):
    made = study(trials=1)
    made.study_file.write_text(made.study_file.read_text().replace('"hours": null', '"hours": 2'))
    made.elapsed.write_text(f"{swept}\n")
    one = begin(job(made, 0, kind="final", folder=made.final("2026-11-21-0000").root))
    end(one, curve(one, 0.5)[:1], "COMPLETE")
    if final:
        records.add_final_seconds(RunFolder(one.folder), final - 100)
        records.add_final_seconds(RunFolder(one.folder), 100)
    found = studies.status_of(made)
    trials = records.seconds(made)
    said = next(line for line in status.status(found) if line.startswith("hours"))
    assert said == f"hours    2 h: trials {trials:.0f}s, {words}"
    spent = status.document(found)["spent_seconds"]
    assert sum(spent.values()) == pytest.approx(7200)


def test_of_a_study_without_hours_there_is_no_account():
    found = studies.status_of(study())
    assert status.document(found)["spent_seconds"] is None
    assert not [line for line in status.status(found) if line.startswith("hours")]


def test_a_study_without_trials_wants_its_only_training_and_then_a_score():
    made = study(trials=0, planned=0)
    made.resume_command.write_text("sweep run space.yaml\n")
    assert studies.status_of(made).state == "INTERRUPTED"
    assert status.next_command(studies.status_of(made)) == "sweep run space.yaml"
    one = begin(job(made, 0, kind="final", folder=made.final("2026-11-21-0000").root))
    end(one, curve(one, 0.5), "COMPLETE")
    RunFolder(one.folder).submission.touch()
    assert studies.status_of(made).state == "COMPLETE"
    assert status.next_command(studies.status_of(made)) == "sweep score focal VALUE"


def test_a_search_that_has_ended_in_its_hours_is_complete_although_a_trial_is_paused():
    made = study(trials=1)
    begin(job(made, 1))  # out of time
    made.study_file.write_text(made.study_file.read_text().replace('"trials": 3, "hours": null', '"hours": 2'))
    made.elapsed.write_text("3600\n")
    made.resume_command.write_text("sweep run space.yaml --hours 2\n")
    assert studies.status_of(made).state == "INTERRUPTED"
    study_file.end_search(made, 2)
    assert studies.status_of(made).state == "COMPLETE"
    assert status.next_command(studies.status_of(made)) == "sweep run space.yaml --hours 2"  # the retraining
    final = begin(job(made, 0, kind="final", folder=made.final("2026-11-21-0000").root))
    end(final, curve(final), "COMPLETE")
    assert status.next_command(studies.status_of(made)) == "sweep predict focal IMAGES"
    ended = made.study_file.read_text()
    for more in ('"hours": 3', '"trials": 5, "hours": 2'):  # either lets the trial go on
        made.study_file.write_text(ended.replace('"hours": 2', more))
        assert studies.status_of(made).state == "INTERRUPTED"


def test_an_unfinished_final_of_another_trial_is_finished_by_its_number():
    made = study(planned=2)
    best = begin(job(made, 1, kind="final", folder=made.final("2026-11-21-0001").root))
    assert status.next_command(studies.status_of(made)) == "sweep best focal --export submission"
    end(best, curve(best), "COMPLETE")
    other = job(made, 0, kind="final", folder=made.final("2026-11-22-0000").root)
    begin(other.model_copy(update={"metric_history": (0.5,)}))
    assert status.next_command(studies.status_of(made)) == "sweep best focal --trial 0 --export submission"
    member = job(made, 1, kind="final", folder=made.final("2026-11-22-0001-seed1000").root)
    begin(member.model_copy(update={"seed": 1000}))  # no command finishes a member alone
    assert status.next_command(studies.status_of(made)) == "sweep best focal --trial 0 --export submission"


def test_a_study_without_trials_is_not_complete_before_its_ensemble_is():
    made = study(trials=0, planned=0)
    made.resume_command.write_text("sweep run space.yaml\n")
    one = begin(job(made, 0, kind="final", folder=made.final("2026-11-21-0000").root))
    end(one, curve(one), "COMPLETE")
    members = (EnsembleMember(trial=0, share=0.5, final="2026-11-21-0000"),) * 2
    both = job(made, 0, kind="final", folder=made.final("2026-11-21-ensemble").root)
    begin(both.model_copy(update={"ensemble": Ensemble(members=members, most=2, started=1.0)}))
    assert studies.status_of(made).state == "INTERRUPTED"
    assert status.next_command(studies.status_of(made)) == "sweep run space.yaml"
