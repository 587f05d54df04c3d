"""The report: one page that needs nothing but itself."""

import json
from html.parser import HTMLParser

import pytest
from test_figures import finished

from sweeper import record, report
from sweeper.errors import EnvironmentFault, UserError
from sweeper.paths import StudyFolder
from trainers.config import Corrected, DataConfig

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


@pytest.fixture
def study() -> StudyFolder:
    folder = StudyFolder.named("question")
    folder.root.mkdir(parents=True)
    folder.space.write_text("# yaml-language-server: $schema=x\n# Question: why & how?\n#   More.\nstudy: question\n")
    return folder


def words(page: Page) -> str:
    return " ".join(" ".join(page.words).split())


def test_the_page_is_sound_html_that_asks_nobody_for_anything(study, photos):
    finished(study, 0, photos)
    made = report.write(study)
    text = made.path.read_text()
    page = Page(text)
    assert (made.path, made.troubles) == (study.report, ())
    assert "http" not in text
    assert all(where.startswith(("data:image/png;base64,", "#")) for where in page.references)
    assert (page.tags.count("script"), page.tags.count("link")) == (0, 0)


def test_ids_are_unique_and_every_reference_has_one(study, photos):
    finished(study, 0, photos)
    page = Page(report.write(study).path.read_text())
    assert len(page.ids) == len(set(page.ids))
    assert {where[1:] for where in page.references if where[0] == "#"} <= set(page.ids)


def test_the_page_has_the_question_the_trials_the_winner_and_its_figures(study, photos):
    for number in range(2):
        finished(study, number, photos)
    page = Page(report.write(study).path.read_text())
    said = words(page)
    assert "Question: why & how? More." in said
    assert "yaml-language-server" not in said
    assert "The winner: trial 0" in said
    assert "test_resnet" in said or "resnet18" in said
    assert (page.tags.count("svg"), page.tags.count("img")) == (5, 2)


def test_a_final_has_its_card_which_names_its_figures(study, photos):
    finished(study, 0, photos)
    final = finished(study, 0, photos, kind="final", folder=study.final("2026-11-21-0000").root)
    final.test_scores.write_text("{}")
    final.card.write_text("# The card\n")
    said = words(Page(report.write(study).path.read_text()))
    assert "Final 2026-11-21-0000" in said
    assert "# The card" in said
    report.write(study)
    assert final.card.read_text().count("- [mistakes.png](figures/mistakes.png)") == 1


def test_a_correction_for_class_frequency_is_shown_where_it_was_tried(study, photos):
    folder = finished(study, 0, photos)
    epochs = record.history(folder)
    last = epochs[-1].model_copy(update={"corrected": {"mean_class_accuracy": Corrected(tau=0.75, value=0.4321)}})
    folder.history.write_text("".join(one.model_dump_json() + "\n" for one in [*epochs[:-1], last]))
    said = words(Page(report.write(study).path.read_text()))
    assert "mean_class_accuracy 0.6602 0.4321 0.75" in said


def test_a_hostile_name_of_a_class_is_only_text(study, photos, tmp_path):
    root = tmp_path / "hostile"
    root.mkdir()
    labels = (DataConfig.model_validate(photos).root, "labels.csv")
    text = open("/".join(labels)).read().replace("red", HOSTILE.replace('"', '""').join('""'))  # noqa: PTH123, SIM115
    (root / "labels.csv").write_text(text)
    from pathlib import Path

    for picture in Path(photos.root).glob("*.png"):
        (root / picture.name).symlink_to(picture)
    finished(study, 0, photos.model_copy(update={"root": str(root)}))
    made = report.write(study)
    assert made.troubles == ()
    text = made.path.read_text()
    assert Page(text).tags.count("script") == 0
    assert "&lt;script&gt;" in text


def test_a_study_in_which_nothing_has_completed_has_a_page_too(study):
    page = Page(report.write(study).path.read_text())
    assert "None has begun." in words(page)


def test_what_could_not_be_drawn_stands_on_the_page(study, photos):
    finished(study, 0, photos).val_logits.write_bytes(b"no array")
    made = report.write(study)
    assert made.troubles[0].startswith("confusion.png, mistakes.png: ")
    assert "Not everything could be drawn." in words(Page(made.path.read_text()))


def test_the_page_goes_where_it_is_asked_to(study, tmp_path):
    made = report.write(study, tmp_path / "out" / "page.html")
    assert made.path.exists()
    assert not study.report.exists()
    with pytest.raises(UserError, match="this is a folder"):
        report.write(study, tmp_path)


def test_a_damaged_folder_is_an_error_with_its_place(study, photos):
    folder = finished(study, 0, photos)
    folder.result.write_text("{")
    with pytest.raises(EnvironmentFault, match="this file is damaged") as caught:
        report.write(study)
    assert caught.value.where == str(folder.result)


def test_the_command_prints_where_the_page_is(tmp_path):
    from cli_tools import sweep

    study = StudyFolder(tmp_path / "mlruns" / "studies" / "question")
    study.root.mkdir(parents=True)
    study.spec.write_text("{}")
    study.space.write_text("study: question\n")
    plain = sweep(tmp_path, "report")
    assert (plain.stdout, plain.returncode) == ("mlruns/studies/question/report.html\n", 0)
    document = json.loads(sweep(tmp_path, "report", "question", "--json").stdout)
    assert document == {"schema_version": 1, "path": str(study.report), "troubles": []}
    missing = sweep(tmp_path, "report", "another")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "no study 'another'" in missing.stderr
