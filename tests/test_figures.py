"""Figures: the numbers behind them, the bytes, what is drawn of a folder, and who is told when it is not."""

import functools
import io
import math
import os
import re
import shutil
import time
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from photos import draw_photos
from PIL import Image
from studies import begin, curve, end, job

from sweeper import arrived, draw, figures, gallery, keeping, paths, record, tally, trends
from sweeper.artist import Artist, Order
from sweeper.errands import CLOSE, DRAWN, STUDY, End, Errands
from sweeper.paths import RunFolder, StudyFolder
from sweeper.tracking import Facts, Mlflow
from trainers.config import DataConfig, Epoch, Recipe
from trainers.data import layouts
from trainers.data.rows import Category

SIZES = [3, 2]
GROUPS = [Category("colour", ("blue", "green", "red $x_1$")), Category("place", ("high", "<low> & co"))]


def guesses(count: int = 40, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random logits [N, 5] and labels [N, 2]."""
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.integers(size, size=count) for size in SIZES], axis=1)
    return rng.normal(size=(count, 5)).astype(np.float32), labels


# ------------------------------------------------------------------------------------------ numbers
def test_a_confusion_counts_true_rows_and_said_columns():
    logits = np.array([[9, 0, 0, 0, 9], [0, 9, 0, 9, 0], [0, 9, 0, 0, 9.0]])
    first, second = tally.confusion(logits, np.array([[0, 1], [2, 0], [1, 0]]), SIZES)
    assert first.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert second.tolist() == [[1, 1], [0, 1]]


def test_a_confusion_agrees_with_the_metrics_of_training():
    from trainers.metrics import HITS, PREDICTED, TRUE, Tally

    logits, labels = guesses(300)
    theirs = Tally(SIZES)
    theirs.update(torch.from_numpy(logits), torch.from_numpy(labels))
    counts, ours = theirs.counts.view(3, -1).numpy(), tally.confusion(logits, labels, SIZES)
    np.testing.assert_array_equal(counts[TRUE], np.concatenate([matrix.sum(1) for matrix in ours]))
    np.testing.assert_array_equal(counts[PREDICTED], np.concatenate([matrix.sum(0) for matrix in ours]))
    np.testing.assert_array_equal(counts[HITS], np.concatenate([np.diag(matrix) for matrix in ours]))


def test_mistakes_are_all_wrong_answers_the_worst_first():
    logits, labels = guesses()
    found = tally.mistakes(logits, labels, SIZES)
    expected = []
    for k, part in enumerate(torch.split(torch.from_numpy(logits).double(), SIZES, dim=1)):
        cost = torch.nn.functional.cross_entropy(part, torch.from_numpy(labels[:, k]), reduction="none")
        wrong = part.argmax(1) != torch.from_numpy(labels[:, k])
        expected += [(cost[row].item(), row, k) for row in torch.nonzero(wrong).flatten().tolist()]
    worst = sorted(expected, key=lambda one: -one[0])
    assert [(one.row, one.category) for one in found] == [(row, k) for _, row, k in worst]
    assert [one.loss for one in found] == pytest.approx([cost for cost, *_ in worst])


def test_a_mistake_tells_what_was_said_how_surely_and_what_is_true():
    logits = np.array([[0, math.log(3), 0, 0, 5.0]])
    (one,) = tally.mistakes(logits, np.array([[2, 1]]), SIZES)
    assert (one.row, one.category, one.said, one.true) == (0, 0, 1, 2)
    assert one.confidence == pytest.approx(0.6)
    assert one.loss == pytest.approx(math.log(5))


def test_predictions_without_a_mistake_have_none():
    assert tally.mistakes(np.eye(5)[[0, 1]][:, :3] * 9, np.array([[0], [1]]), [3]) == []


# -------------------------------------------------------------------------------------------- bytes
DOTS = [
    trends.Dot(n, ("COMPLETE", "PRUNED", "FAILED")[n % 3], n / 9, {"lr": 10.0**-n, "crop": "x"}) for n in range(6)
]


def drawn() -> dict[str, bytes]:
    logits, labels = guesses()
    learning = figures.Learning({"colour": [0.1, 0.2]}, {"colour": [0.2, 0.3]}, {"F1": [0.1, 0.3]}, epoch=2)
    counted = tally.counts(labels, SIZES)
    weighed = [figures.Labels(g, n, n / 7) for g, n in zip(GROUPS, counted, strict=True)]
    return {
        "categories.svg": figures.categories(learning, "t0001"),
        "confusion.png": figures.confusion(GROUPS, tally.confusion(logits, labels, SIZES), "t0001"),
        "labels.svg": figures.labels(weighed, "labels"),
        "history.svg": trends.history(DOTS, "macro_f1", "study"),
        "slices.svg": trends.slices(DOTS, "macro_f1", "study", lambda name: name == "lr"),
    }


once = functools.cache(drawn)


def test_the_same_numbers_make_the_same_bytes():
    assert drawn() == once()


def test_an_svg_is_well_formed_and_says_neither_when_nor_by_what_it_was_made():
    for name, content in once().items():
        if name.endswith(".svg"):
            ET.fromstring(content)  # noqa: S314
            assert b"<metadata" not in content
            assert b"DOCTYPE" not in content


def test_no_letter_of_a_figure_is_smaller_than_eight_points():
    for name, content in once().items():
        sizes = [float(size) for size in re.findall(rb"font-size: ([\d.]+)px", content)]
        assert sizes or name.endswith(".png")
        assert all(size >= 8 for size in sizes), name


def test_a_class_name_is_shown_as_it_is_whatever_its_letters():
    text = once()["labels.svg"].decode()
    assert "red $x_1$" in text
    assert "&lt;low&gt; &amp; co" in text


def test_a_class_name_in_letters_that_the_font_lacks_is_no_error():
    groups = [Category("服", ("長袖", "半袖"))]
    assert figures.confusion(groups, [np.array([[1, 2], [0, 3]])], "服")[:4] == b"\x89PNG"


def test_seventeen_classes_fit_on_a_figure_without_shrinking():
    group = Category("garment", tuple(f"garment number {n}" for n in range(17)))
    content = figures.confusion([group], [np.diag(np.arange(17))], "many")
    with Image.open(io.BytesIO(content)) as image:
        assert image.width >= 17 * figures.CELL * figures.DPI
    assert len(content) < 500_000


def test_pruned_trials_are_hollow():
    text = trends.history(DOTS, "macro_f1", "study").decode()
    assert "fill: #ffffff; stroke: #0b3d78" in text


# ------------------------------------------------------------------------------------------ folders
def finished(study: StudyFolder, number: int, data: DataConfig, **changes) -> RunFolder:
    """A trial that completed, with random predictions of val (or of test, for a final)."""
    table = layouts.read(data)
    made = job(study, number, **changes)
    recipe = Recipe(data=data, goal=made.recipe.goal, train=made.recipe.train)
    started = begin(made.model_copy(update={"recipe": recipe}))
    names = [category.name for category in table.categories]
    for one in curve(started):
        write_again(RunFolder(started.folder), one, names)
    folder = RunFolder(started.folder)
    end(started, record.history(folder), "COMPLETE")
    split = "test" if made.kind == "final" else "val"
    predictions = np.random.default_rng(number).normal(size=(len(table.split(split)), 5)).astype(np.float32)
    np.save(folder.test_logits if made.kind == "final" else folder.val_logits, predictions)
    return folder


def write_again(folder: RunFolder, one: Epoch, names: list[str]) -> None:
    """The epoch with the categories of the data set instead of those of `studies`."""
    changes = {
        part: getattr(one, part).model_copy(update={"category_accuracy": dict.fromkeys(names, 0.5)})
        for part in ("train", "val")
    }
    lines = [] if one.number == 1 else folder.history.read_text().splitlines()[: one.number - 1]
    folder.history.write_text("\n".join([*lines, one.model_copy(update=changes).model_dump_json()]) + "\n")


@pytest.fixture
def study() -> StudyFolder:
    folder = StudyFolder.named("question")
    folder.root.mkdir(parents=True)
    return folder


def test_a_completed_trial_gets_four_figures(study, photos):
    folder = finished(study, 0, photos)
    drawing = draw.run(folder)
    assert drawing.troubles == ()
    names = {path.name for path in drawing.files}
    assert names == {"categories.svg", "confusion.png", "labels.svg", "mistakes.png"}
    assert all(path.parent == folder.figures and path.stat().st_size < 500_000 for path in drawing.files)


def test_figures_that_are_younger_than_the_result_are_not_drawn_again(study, photos):
    folder = finished(study, 0, photos)
    before = {path: path.stat().st_mtime_ns for path in draw.run(folder).files}
    assert {path: path.stat().st_mtime_ns for path in draw.run(folder).files} == before
    os.utime(folder.figures / "labels.svg", (0, 0))
    (folder.figures / "confusion.png").unlink()
    again = {path.name for path in draw.run(folder).files if path.stat().st_mtime_ns != before[path]}
    assert again == {"labels.svg", "confusion.png"}


def test_a_final_shows_its_mistakes_on_test(study, photos):
    drawing = draw.run(finished(study, 0, photos, kind="final", folder=study.final("one").root))
    assert drawing.troubles == ()
    assert {path.name for path in drawing.files} == {"confusion.png", "labels.svg", "mistakes.png"}


def test_predictions_that_are_damaged_or_of_another_data_set_are_told_and_cost_no_other_figure(study, photos):
    folder = finished(study, 0, photos)
    np.save(folder.val_logits, np.zeros((3, 5), dtype=np.float32))
    drawing = draw.run(folder)
    assert {path.name for path in drawing.files} == {"categories.svg", "labels.svg"}
    (trouble,) = drawing.troubles
    folder.val_logits.write_bytes(b"no array")
    assert draw.run(folder).troubles == (f"confusion.png, mistakes.png: this file is damaged ({folder.val_logits})",)
    assert trouble.startswith("confusion.png, mistakes.png: predictions of shape (3, 5), the data set needs (24, 5)")


def test_a_run_that_did_not_keep_its_predictions_has_the_other_figures_and_no_trouble(study, photos):
    folder = finished(study, 0, photos)
    folder.val_logits.unlink()
    drawing = draw.run(folder)
    assert {path.name for path in drawing.files} == {"categories.svg", "labels.svg"}
    assert drawing.troubles == ()


def ended(kept: keeping.Kept, study: StudyFolder, data: DataConfig, count: int) -> list[RunFolder]:
    """Trials with checkpoints that end one after the other."""
    made = [finished(study, number, data) for number in range(count)]
    for folder in made:
        for path in (folder.model, folder.checkpoint):
            path.write_bytes(b"weights")
        if result := record.read_result(folder):
            kept.ended(result)
    return made


def test_predictions_that_are_not_kept_stay_until_they_are_drawn(study, photos):
    kept = keeping.Kept(study, 1, draws=True)
    best, worse = ended(kept, study, photos, 2)  # of equals the earlier is kept
    assert (best.model.exists(), best.checkpoint.exists(), best.val_logits.exists()) == (True, True, True)
    assert (worse.model.exists(), worse.checkpoint.exists(), worse.val_logits.exists()) == (False, False, True)
    assert len(draw.run(worse).files) == 4
    kept.settle()
    assert not worse.val_logits.exists()
    assert len(draw.run(worse).files) == 4
    assert best.val_logits.exists()


def test_predictions_go_at_once_where_nobody_draws(study, photos):
    _, worse = ended(keeping.Kept(study, 1), study, photos, 2)
    assert not worse.val_logits.exists()


def test_only_so_many_predictions_wait_to_be_drawn(study, photos, monkeypatch):
    monkeypatch.setattr(keeping, "QUEUE", 2)
    folders = ended(keeping.Kept(study, 1, draws=True), study, photos, 5)
    assert [folder.val_logits.exists() for folder in folders] == [True, False, False, True, True]


def test_figures_of_predictions_that_are_gone_are_sent(study, photos):
    folder = finished(study, 0, photos)
    draw.run(folder)
    folder.val_logits.unlink()
    result = record.read_result(folder)
    assert result
    assert arrived.awaits_figures(folder, result, "trial")


def test_a_data_set_that_is_gone_is_told_in_a_line(study, tmp_path):
    (tmp_path / "photos").mkdir()
    folder = finished(study, 0, draw_photos(tmp_path / "photos", train=6, val=3, test=0))
    shutil.rmtree(tmp_path / "photos")
    draw._table.cache_clear()
    (trouble,) = draw.run(folder).troubles
    assert trouble == f"confusion.png, labels.svg, mistakes.png: no such folder ({tmp_path}/photos)"


def test_a_study_shows_its_trials_and_where_they_lie_in_the_space(study, photos):
    for number in range(3):
        finished(study, number, photos)
    drawing = draw.study(study)
    assert drawing.troubles == ()
    assert {path.name for path in drawing.files} == {"history.svg", "slices.svg", "labels.svg"}


def test_the_thumbnail_of_a_mistake_is_cut_to_its_box(tmp_path):
    from trainers.data.rows import Row, Table

    Image.new("RGB", (80, 60), "red").save(tmp_path / "a.png")
    row = Row("a.png", "val", (10, 5, 30, 55), (0,), "labels.csv:2")
    table = Table(tmp_path, (Category("one", ("a", "b")),), (row,))
    assert gallery.read(table, row).size == (20, 50)
    assert gallery.crops(table, [row], "crops") == gallery.crops(table, [row], "crops")


# ------------------------------------------------------------------------------------- the process
class Notes(list):
    """What an artist told."""

    def __call__(self, text: str = "drawn") -> None:
        self.append(text)


def test_an_artist_draws_in_a_process_of_its_own_and_ends_it(study, photos):
    folder, notes = finished(study, 0, photos), Notes()
    artist = Artist(notes, notes)
    artist.ask(Order(key="trials/0000", folder=folder.root))
    artist.ask(Order(key="trials/0000", folder=folder.root))
    process = artist._process
    artist.wait()
    (drawing,) = artist.ready()
    assert {path.name for path in drawing.files} >= {"confusion.png", "mistakes.png"}
    artist.close()
    assert process.poll() is not None
    assert notes == ["drawn"]


def test_why_nothing_could_be_drawn_is_told_once(study, tmp_path):
    notes, drawings = Notes(), Notes()
    artist = Artist(drawings, notes)
    for number in range(2):
        artist.ask(Order(key=f"trials/000{number}", folder=study.trial(number).root))
    artist.wait()
    artist.close()
    (note,) = notes
    assert note == "figures are missing: trials/0000: the run has not ended; `sweep report` tries again"


def test_a_process_that_dies_is_told_and_nobody_waits_for_it(study, photos):
    folder, notes = finished(study, 0, photos), Notes()
    artist = Artist(Notes(), notes)
    artist.ask(Order(key="trials/0000", folder=folder.root))
    artist._process.kill()
    artist.wait()
    until(lambda: notes)
    artist.close()
    assert "the process that draws has ended with code -9" in notes[0]


def test_the_process_ends_with_whoever_started_it():
    import subprocess
    import sys

    process = subprocess.Popen([sys.executable, "-m", "sweeper.draw"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.communicate(timeout=20)
    assert process.returncode == 0


# --------------------------------------------------------------------------------------- in MLflow
class Shelf:
    """A server that keeps the names of the files it is given, by run."""

    uri = "memory"

    def __init__(self) -> None:
        self.files: dict[str, list[str]] = {}

    def experiment(self, *_) -> str:
        return "1"

    def home(self, _) -> str:
        return "1"

    def view(self, *_) -> None: ...

    def run(self, _, name, *__) -> str:
        return name

    def log(self, *_) -> None: ...
    def tag(self, *_) -> None: ...
    def status(self, *_) -> None: ...

    def text(self, run, name, _) -> None:
        self.files.setdefault(run, []).append(name)

    def file(self, run, path) -> None:
        self.files.setdefault(run, []).append(path.name)


def shelved(study: StudyFolder, *, hurry: bool = False) -> tuple[Shelf, Notes]:
    """What a server has after the study was opened and closed, and what was noted on the way."""
    shelf, notes = Shelf(), Notes()
    artist = Artist(Notes(), notes)
    errands = Errands(facts(study), lambda: shelf, lambda _: "", artist)
    errands.end = End("COMPLETE", (), hurry)
    for errand in (STUDY, CLOSE, DRAWN):
        errands.do(errand)
    artist.close()
    return shelf, notes


def facts(study: StudyFolder) -> Facts:
    return Facts(study, "data/clothes", "overall_accuracy", "# why?\nstudy: x\n")


def test_figures_are_sent_once_and_a_study_brings_its_report(study, photos):
    finished(study, 0, photos)
    shelf, notes = shelved(study)
    assert notes == []
    assert {*shelf.files["t0000 resnet18"]} >= {"categories.svg", "confusion.png", "labels.svg", "mistakes.png"}
    assert {*shelf.files["question"]} >= {"history.svg", "slices.svg", "labels.svg", "report.html"}
    again, _ = shelved(study, hurry=True)
    assert "t0000 resnet18" not in again.files


def test_what_cannot_be_drawn_is_a_note_and_the_study_is_closed_as_ever(study, photos):
    folder = finished(study, 0, photos)
    np.save(folder.val_logits, np.zeros((3, 5), dtype=np.float32))
    shelf, (note,) = shelved(study)
    assert note.startswith("figures are missing: ")
    assert "confusion.png, mistakes.png: predictions of shape (3, 5), the data set needs (24, 5)" in note
    assert "report.html" in shelf.files["question"]


def test_who_is_in_a_hurry_waits_for_no_figure(study, photos):
    finished(study, 0, photos)
    shelf, _ = shelved(study, hurry=True)
    assert "report.html" not in shelf.files["question"]


def test_a_study_without_predictions_starts_no_process(study, photos):
    finished(study, 0, photos).val_logits.unlink()
    shelf, notes = shelved(study)
    assert notes == []
    assert "report.html" not in shelf.files["question"]
    assert not paths.fonts().exists()


@pytest.mark.filterwarnings("ignore:.*noload.*", "ignore::DeprecationWarning:(mlflow|google|starlette|alembic).*")
def test_mlflow_has_the_figures_of_a_study_that_was_closed(study, photos):
    finished(study, 0, photos)
    notes = Notes()
    tracker = Mlflow(notes, pause=0.05)
    tracker.opened(facts(study))
    tracker.closed("COMPLETE", patience=60.0)
    assert notes == []
    names = {path.name for path in paths.artifacts().rglob("*") if path.is_file()}
    assert names >= {"curves.svg", "categories.svg", "confusion.png", "mistakes.png", "report.html", "slices.svg"}


def until(true) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_of_a_crowd_of_classes_the_most_mistaken_are_shown():
    matrix = np.eye(90, dtype=np.int64) * 50
    matrix[7, 80] = matrix[80, 7] = 9
    group, shown = figures._confused(Category("kind", tuple(map(str, range(90)))), matrix)
    assert len(group.classes) == figures.CROWD == len(shown)
    assert {"7", "80"} <= set(group.classes)
    assert group.name == "kind, the 40 most mistaken of 90"
    picture = Image.open(io.BytesIO(figures.confusion([group], [shown], "crowd")))
    assert max(picture.size) < 3000
