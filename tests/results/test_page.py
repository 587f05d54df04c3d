"""The report: one page that needs nothing but itself."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from sweeper.errors import EnvironmentFault, UserError
from sweeper.results import page as report_page
from sweeper.store import records
from sweeper.store.paths import StudyFolder
from tests.figures.test_figures import finished
from tests.support.photos import draw_photos
from trainers.data_config import DataConfig
from trainers.epoch import Corrected

EMPTY = {"meta", "img", "wbr"}
DRAWN = {"path", "use", "rect", "circle", "polyline", "line"}
HOSTILE = '<script>alert("x")</script>'


class Page(HTMLParser):
    """Raises where tags do not close in order; keeps tags, ids and words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.ids, self.words = [], [], [], []
        self.references: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.references += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in EMPTY:
            self.open.pop()

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.words.append(data)


def begun(root: Path) -> StudyFolder:
    folder = StudyFolder(root / "question")
    folder.root.mkdir(parents=True)
    folder.space.write_text("# yaml-language-server: $schema=x\n# Question: why & how?\n#   More.\nstudy: question\n")
    return folder


@pytest.fixture
def study(tmp_path) -> StudyFolder:
    return begun(tmp_path / "studies")


@pytest.fixture(scope="module")
def photos_with_a_script(tmp_path_factory) -> DataConfig:
    """The usual photos; one colour is called as only an attacker would."""
    root = tmp_path_factory.mktemp("hostile")
    data = draw_photos(root)
    with (root / "labels.csv").open(newline="") as file:
        rows = [[HOSTILE if cell == "red" else cell for cell in row] for row in csv.reader(file)]
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return data


@pytest.fixture(scope="module")
def full(tmp_path_factory, photos_with_a_script) -> tuple[StudyFolder, str]:
    """A study of two trials and a final, and its page; written once, not to be written to."""
    study = begun(tmp_path_factory.mktemp("full"))
    for number in range(2):
        finished(study, number, photos_with_a_script)
    epochs = records.history(study.trial(0))
    last = epochs[-1].model_copy(update={"corrected": {"mean_class_accuracy": Corrected(tau=0.75, value=0.4321)}})
    study.trial(0).history.write_text("".join(one.model_dump_json() + "\n" for one in [*epochs[:-1], last]))
    final = finished(study, 0, photos_with_a_script, kind="final", folder=study.final("2026-11-21-0000").root)
    final.test_scores.write_text(epochs[0].train.model_dump_json())
    final.card.write_text("# The card\n")
    assert report_page.write(study).troubles == ()
    return study, report_page.write(study).path.read_text()


def own(text: str) -> str:
    """The page without Plotly's script."""
    return re.sub(r"<script>/\*\*.*?</script>", "", text, flags=re.DOTALL)


def words(page: Page) -> str:
    return " ".join(" ".join(page.words).split())


def test_the_page_is_sound_html_that_asks_nobody_for_anything(full):
    _, text = full
    page = Page(own(text))
    assert "http:" not in own(text)
    assert "https:" not in own(text)
    assert all(where.startswith(("data:image/png;base64,", "#")) for where in page.references)
    assert page.tags.count("link") == 0
    assert "default-src 'none'" in text  # so that a browser asks for nothing, whatever the script would like


def test_a_hostile_name_of_a_class_is_only_text(full):
    assert "&lt;script&gt;" in full[1]
    assert own(full[1]).count("<script") == len(re.findall("<script>\n|<script type=", own(full[1])))


def test_ids_are_unique_and_every_reference_has_one(full):
    page = Page(own(full[1]))
    assert len(page.ids) == len(set(page.ids))
    assert {where[1:] for where in page.references if where[0] == "#"} <= set(page.ids)


def test_the_page_has_the_question_the_trials_the_winner_and_its_figures(full):
    page = Page(own(full[1]))
    said = words(page)
    assert "Question: why & how? More." in said
    assert "yaml-language-server" not in said
    assert "The winner: trial 0" in said
    assert "backbone: resnet18.a1_in1k" in said
    assert "chart-history" in page.ids
    assert (page.tags.count("svg"), page.tags.count("img")) == (4, 4)


def test_a_final_has_its_card_which_no_report_changes(full):
    study, text = full
    assert "Final model 1: 2026-11-21-0000" in words(Page(own(text)))
    assert "# The card" in words(Page(own(text)))
    assert study.final("2026-11-21-0000").card.read_text() == "# The card\n"


def test_a_correction_for_class_frequency_is_shown_where_it_was_tried(full):
    assert "mean_class_accuracy 0.6602 0.4321 0.75" in words(Page(own(full[1])))


def test_a_study_in_which_nothing_has_completed_has_a_page_too(study):
    page = Page(report_page.write(study).path.read_text())
    assert "No trial has started." in words(page)


def test_what_could_not_be_drawn_stands_on_the_page(study, photos):
    np.save(finished(study, 0, photos).val_logits, np.zeros((3, 5), dtype=np.float32))
    made = report_page.write(study)
    assert made.troubles[0].startswith("confusion.png, mistakes.png: ")
    assert "Not everything could be drawn." in words(Page(made.path.read_text()))


def test_the_page_goes_where_it_is_asked_to(study, tmp_path):
    made = report_page.write(study, tmp_path / "out" / "page.html")
    assert made.path.exists()
    assert not study.report.exists()
    with pytest.raises(UserError, match="this is a folder"):
        report_page.write(study, tmp_path)


def test_a_damaged_folder_is_an_error_with_its_place(study, photos):
    folder = finished(study, 0, photos)
    folder.result.write_text("{")
    with pytest.raises(EnvironmentFault, match="this file is damaged") as caught:
        report_page.write(study)
    assert caught.value.where == str(folder.result)


@pytest.mark.process
def test_the_command_prints_where_the_page_is(tmp_path):
    from tests.support.cli import sweep

    study = StudyFolder(tmp_path / "mlruns" / "studies" / "question")
    study.root.mkdir(parents=True)
    asked = {
        "schema_version": 2,
        "study": "question",
        "identity": {"metric": "overall_accuracy", "data": {}, "train": {}},
    }
    study.study_file.write_text(json.dumps(asked))
    study.space.write_text("study: question\n")
    document = json.loads(sweep(tmp_path, "report", "question", "--json").stdout)
    assert document == {"schema_version": 1, "path": str(study.report), "troubles": []}
    missing = sweep(tmp_path, "report", "another")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "no study 'another'" in missing.stderr
