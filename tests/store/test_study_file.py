"""study.json: of which version of sweep a study's files are."""

import json
import shutil
from pathlib import Path

import pytest

from sweeper.errors import EnvironmentFault, UserError
from sweeper.store import studies, study_file
from tests.support import studies as played

pytestmark = pytest.mark.usefixtures("faked")


def written_by(path: Path, version: int | None) -> None:
    """Have study.json say that `version` of the layout is its own."""
    file = path.parent / "question" / "study.json"
    document = json.loads(file.read_text())
    document.pop("schema_version")
    file.write_text(json.dumps(document if version is None else document | {"schema_version": version}))


@pytest.mark.parametrize(("version", "word"), [(None, "an earlier"), (1, "an earlier"), (3, "a later")])
def test_a_study_of_another_version_is_refused_in_one_sentence_and_left_as_it_is(tmp_path, version, word):
    path = played.write(tmp_path)
    played.opened(path).close()
    written_by(path, version)
    before = (tmp_path / "question" / "study.json").read_bytes()
    with pytest.raises(UserError) as caught:
        played.opened(path)
    assert not isinstance(caught.value, EnvironmentFault)
    assert caught.value.what == f"study 'question' was made by {word} version of sweep, and this one cannot read it"
    assert "move the folder away" in caught.value.help
    assert (tmp_path / "question" / "study.json").read_bytes() == before


def test_among_the_studies_those_of_another_version_are_passed_over_and_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("SWEEP_HOME", str(tmp_path / "home"))
    home = tmp_path / "home" / "studies"
    for name, version in (("old", 1), ("new", study_file.SCHEMA_VERSION)):
        (home / name).mkdir(parents=True)
        identity = {"data": {}, "metric": "macro_f1", "train": {}}
        document = {"schema_version": version, "study": name, "identity": identity}
        (home / name / "study.json").write_text(json.dumps(document))
    assert [study.name for study in studies.studies()] == ["new"]
    with pytest.raises(UserError, match="earlier version"):
        studies.find("old")
    assert studies.find("new").name == "new"
    shutil.rmtree(home / "new")
    with pytest.raises(UserError, match="study 'old' was made by an earlier version"):
        studies.find(None)


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        ("a-1-f-2", "a-1-f-2", True),
        ("a-1-f-2", "b-9-f-2", True),  # test alone differs
        ("a-1-f-2", "b-9-g-2", False),
        ("a-1-f-2", "b-9-f-3", False),
        ("a-1-f-2", "b--f", True),  # sizes of files were not looked at
        ("a-1-f-2", "a--g", False),
        ("a-1", "a-1-f-2", True),  # a study of before says nothing of train and val
        ("a-1", "b-1-f-2", False),
        ("", "b-1-f-2", True),
    ],
)
def test_fingerprints_of_train_and_val_decide_where_both_have_them(before, now, same):
    assert study_file.same_fingerprint(before, now) is same
