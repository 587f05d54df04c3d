"""Figures: the numbers behind them, the bytes, and what is drawn of a folder."""

import functools
import io
import math
import os
import re
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sweeper.figures import answer_plots, image_grids, plots, runs, study_plots
from sweeper.statistics import confusion
from sweeper.store import records, retention
from sweeper.store.importance import Importance, Share
from sweeper.store.paths import RunFolder, StudyFolder
from tests.support.photos import draw_photos
from tests.support.records import begin, curve, end, job
from trainers.config import Recipe
from trainers.data import layouts
from trainers.data.table import Category, Row, Table, class_counts, known_images
from trainers.data_config import DataConfig
from trainers.epoch import Epoch

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
    first, second = confusion.answers(logits, np.array([[0, 1], [2, 0], [1, 0]]), GROUPS)
    assert first.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert second.tolist() == [[1, 1], [0, 1]]


def test_a_confusion_agrees_with_the_metrics_of_training():
    from trainers.evaluation.metrics import HITS, PREDICTED, TRUE
    from trainers.evaluation.tally import Tally

    logits, labels = guesses(300)
    theirs = Tally([Category(str(size), tuple(map(str, range(size)))) for size in SIZES])
    theirs.update(torch.from_numpy(logits), torch.from_numpy(labels))
    counts, ours = theirs.counts.view(3, -1).numpy(), confusion.answers(logits, labels, GROUPS)
    np.testing.assert_array_equal(counts[TRUE], np.concatenate([matrix.sum(1) for matrix in ours]))
    np.testing.assert_array_equal(counts[PREDICTED], np.concatenate([matrix.sum(0) for matrix in ours]))
    np.testing.assert_array_equal(counts[HITS], np.concatenate([np.diag(matrix) for matrix in ours]))


def test_mistakes_are_all_wrong_answers_the_worst_first():
    logits, labels = guesses()
    found = confusion.mistakes(logits, labels, GROUPS)
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
    (one,) = confusion.mistakes(logits, np.array([[2, 1]]), GROUPS)
    assert (one.row, one.category, one.predicted, one.true) == (0, 0, 1, 2)
    assert one.confidence == pytest.approx(0.6)
    assert one.loss == pytest.approx(math.log(5))


def test_predictions_without_a_mistake_have_none():
    assert confusion.mistakes(np.eye(5)[[0, 1]][:, :3] * 9, np.array([[0], [1]]), GROUPS[:1]) == []


# -------------------------------------------------------------------------------------------- bytes
DOTS = [
    study_plots.Dot(n, ("COMPLETE", "PRUNED", "FAILED")[n % 3], n / 9, {"lr": 10.0**-n, "crop": "x"})
    for n in range(6)
]


def drawn() -> dict[str, bytes]:
    logits, labels = guesses()
    learning = plots.Learning({"colour": [0.1, 0.2]}, {"colour": [0.2, 0.3]}, {"F1": [0.1, 0.3]}, epoch=2)
    counted = class_counts(labels, GROUPS)
    weighed = [plots.Labels(g, n, n / 7) for g, n in zip(GROUPS, counted, strict=True)]
    return {
        "categories.svg": plots.categories(learning, "t0001"),
        "confusion.png": answer_plots.confusion(GROUPS, confusion.answers(logits, labels, GROUPS), "t0001"),
        "labels.svg": plots.labels(weighed, "labels"),
        "history.svg": study_plots.history(DOTS, "macro_f1", "study"),
        "slices.svg": study_plots.slices(DOTS, "macro_f1", "study", lambda name: name == "lr"),
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
    assert answer_plots.confusion(groups, [np.array([[1, 2], [0, 3]])], "服")[:4] == b"\x89PNG"


def test_seventeen_classes_fit_on_a_figure_without_shrinking():
    group = Category("garment", tuple(f"garment number {n}" for n in range(17)))
    content = answer_plots.confusion([group], [np.diag(np.arange(17))], "many")
    with Image.open(io.BytesIO(content)) as image:
        assert image.width >= 17 * answer_plots.CELL * plots.DPI
    assert len(content) < 500_000


def test_pruned_trials_are_hollow():
    text = study_plots.history(DOTS, "macro_f1", "study").decode()
    assert "fill: #ffffff; stroke: #0b3d78" in text


# ------------------------------------------------------------------------------------------ folders
def finished(study: StudyFolder, number: int, data: DataConfig, **changes) -> RunFolder:
    """A trial that completed, with random predictions of val (or of test, for a final)."""
    table = layouts.read(data)
    made = job(study, number, **changes)
    recipe = Recipe(data=data, metric=made.recipe.metric, train=made.recipe.train)
    started = begin(made.model_copy(update={"recipe": recipe}))
    names = [category.name for category in table.categories]
    for one in curve(started):
        write_again(RunFolder(started.folder), one, names)
    folder = RunFolder(started.folder)
    end(started, records.history(folder), "COMPLETE")
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


def test_a_completed_trial_gets_five_figures(study, photos):
    folder = finished(study, 0, photos)
    drawing = runs.run(folder)
    assert drawing.troubles == ()
    names = {path.name for path in drawing.files}
    assert names == {"curves.svg", "categories.svg", "confusion.png", "labels.svg", "mistakes.png"}
    assert all(path.parent == folder.figures and path.stat().st_size < 500_000 for path in drawing.files)


def times(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*.*")}


def test_only_figures_that_are_missing_are_drawn_again(study, photos):
    folder = finished(study, 0, photos)
    before = {path: path.stat().st_mtime_ns for path in runs.run(folder).files}
    (folder.figures / "confusion.png").unlink()
    assert {path.name for path in runs.run(folder).files if path.stat().st_mtime_ns != before[path]} == {
        "confusion.png"
    }


def test_figures_of_another_end_are_drawn_again(study, photos):
    folder = finished(study, 0, photos)
    before = {path: path.stat().st_mtime_ns for path in runs.run(folder).files}
    folder.result.write_text(folder.result.read_text().replace('"epochs": 3', '"epochs": 4'))
    assert all(path.stat().st_mtime_ns > before[path] for path in runs.run(folder).files)


@pytest.mark.parametrize("left", ["", "{", '{"source": 1}'])
def test_without_a_record_of_what_was_drawn_all_is_drawn_again(study, photos, left):
    folder = finished(study, 0, photos)
    folder.val_logits.unlink()  # three figures are enough here, and those of predictions take longest
    before = {path: path.stat().st_mtime_ns for path in runs.run(folder).files}
    folder.drawn.write_text(left)
    assert all(path.stat().st_mtime_ns > before[path] for path in runs.run(folder).files)


def test_a_copy_of_a_study_is_not_drawn_again(study, photos):
    """Copied file by file, newest first, as `cp -r` may: every time is another, and so is their order."""
    finished(study, 0, photos)
    drawn = [runs.run(study.trial(0)), runs.study(study)]
    copy = StudyFolder(study.root.with_name("copy"))
    shutil.copytree(study.root, copy.root, copy_function=shutil.copyfile)
    for second, path in enumerate(sorted(copy.root.rglob("*.*"), reverse=True)):
        os.utime(path, (second, second))
    before = times(copy.root)
    again = [runs.run(copy.trial(0)), runs.study(copy)]
    assert [len(one.files) for one in again] == [len(one.files) for one in drawn]
    assert times(copy.root) == before


def test_a_study_shows_what_mattered_once_that_was_computed(study, photos):
    finished(study, 0, photos)
    shares = (Share(name="a" * 60, share=0.9, error=0.2), Share(name="$x$", share=0.1, error=0.3))
    study.importance.write_text(Importance(record="", completed=1, pruned=0, shares=shares).model_dump_json())
    drawing = runs.study(study)
    assert drawing.troubles == ()
    (path,) = [one for one in drawing.files if one.name == "importance.svg"]
    assert "what mattered, of 1 completed and 0 pruned trials" in path.read_text()


def test_the_figures_of_a_study_are_drawn_again_when_a_trial_has_ended(study, photos):
    finished(study, 0, photos)
    before = {path: path.stat().st_mtime_ns for path in runs.study(study).files}
    assert all(path.stat().st_mtime_ns == before[path] for path in runs.study(study).files)
    finished(study, 1, photos)
    assert all(path.stat().st_mtime_ns > before[path] for path in runs.study(study).files)


def test_one_epoch_is_epoch_1_and_train_is_seen_in_it():
    text = plots.curves([plots.Curves("loss", [1.0], [2.0])], "learning").decode()
    assert not re.search(r">(0\.9|1\.0)\d<", text)
    without = plots.curves([plots.Curves("loss", [math.nan], [2.0])], "learning").decode()
    assert text.count("<use") > without.count("<use")


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_a_curve_has_a_gap_where_there_is_no_number(odd):
    curves = [plots.Curves("loss", [1.0, odd, 0.5], [odd, odd, odd])]
    text = plots.curves(curves, "learning")
    assert text == plots.curves(curves, "learning")
    assert text.startswith(b"<svg")


def test_a_final_shows_its_mistakes_on_test(study, photos):
    drawing = runs.run(finished(study, 0, photos, kind="final", folder=study.final("one").root))
    assert drawing.troubles == ()
    assert {path.name for path in drawing.files} == {"curves.svg", "confusion.png", "labels.svg", "mistakes.png"}


def test_predictions_that_are_damaged_or_of_another_data_set_are_told_and_cost_no_other_figure(study, photos):
    folder = finished(study, 0, photos)
    np.save(folder.val_logits, np.zeros((3, 5), dtype=np.float32))
    drawing = runs.run(folder)
    assert {path.name for path in drawing.files} == {"curves.svg", "categories.svg", "labels.svg"}
    (trouble,) = drawing.troubles
    folder.val_logits.write_bytes(b"no array")
    assert runs.run(folder).troubles == (f"confusion.png, mistakes.png: this file is damaged ({folder.val_logits})",)
    assert trouble.startswith(
        "confusion.png, mistakes.png: predictions have shape (3, 5), but the data set needs (24, 5)"
    )


def test_a_run_that_did_not_keep_its_predictions_has_the_other_figures_and_no_trouble(study, photos):
    folder = finished(study, 0, photos)
    folder.val_logits.unlink()
    drawing = runs.run(folder)
    assert {path.name for path in drawing.files} == {"curves.svg", "categories.svg", "labels.svg"}
    assert drawing.troubles == ()


def ended(kept: retention.Retention, study: StudyFolder, data: DataConfig, count: int) -> list[RunFolder]:
    """Trials with checkpoints that end one after the other."""
    made = [finished(study, number, data) for number in range(count)]
    for folder in made:
        for path in (folder.model, folder.checkpoint):
            path.write_bytes(b"weights")
        if result := records.read_result(folder):
            kept.ended(result)
    return made


def test_every_completed_trial_keeps_its_predictions(study, photos):
    kept = retention.Retention(study, 1)
    folders = ended(kept, study, photos, 3)
    assert all(runs.run(folder).files for folder in folders)
    kept.commit_best()
    assert [folder.model.exists() for folder in folders] == [True, False, False]
    assert [folder.val_logits.exists() for folder in folders] == [True, True, True]


def test_predictions_of_many_bytes_stay_until_they_are_drawn(study, photos, monkeypatch):
    monkeypatch.setattr(retention, "MAX_PREDICTIONS", 50)
    kept = retention.Retention(study, 1)
    best, worse = ended(kept, study, photos, 2)  # of equals the earlier is kept
    assert (best.model.exists(), best.checkpoint.exists(), best.val_logits.exists()) == (True, True, True)
    assert (worse.model.exists(), worse.checkpoint.exists(), worse.val_logits.exists()) == (False, False, True)
    assert len(runs.run(worse).files) == 5
    kept.commit_best()
    assert not worse.val_logits.exists()
    assert len(runs.run(worse).files) == 5
    assert best.val_logits.exists()


def test_only_so_many_large_predictions_wait_to_be_drawn(study, photos, monkeypatch):
    monkeypatch.setattr(retention, "MAX_PREDICTIONS", 50)
    monkeypatch.setattr(retention, "QUEUE", 2)
    folders = ended(retention.Retention(study, 1), study, photos, 5)
    assert [folder.val_logits.exists() for folder in folders] == [True, False, False, True, True]


def test_a_data_set_that_is_gone_is_told_in_a_line(study, tmp_path):
    (tmp_path / "photos").mkdir()
    folder = finished(study, 0, draw_photos(tmp_path / "photos", train=6, val=3, test=0))
    shutil.rmtree(tmp_path / "photos")
    (trouble,) = runs.run(folder).troubles
    assert trouble == f"confusion.png, labels.svg, mistakes.png: no such folder ({tmp_path}/photos)"


def test_a_study_shows_its_trials_and_where_they_lie_in_the_space(study, photos):
    for number in range(3):
        finished(study, number, photos)
    drawing = runs.study(study)
    assert drawing.troubles == ()
    assert {path.name for path in drawing.files} == {"history.svg", "slices.svg", "labels.svg"}


def test_the_thumbnail_of_a_mistake_is_cut_to_its_box(tmp_path):
    from trainers.data.table import Row, Table

    Image.new("RGB", (80, 60), "red").save(tmp_path / "a.png")
    row = Row("a.png", "val", (10, 5, 30, 55), (0,), "labels.csv:2")
    table = Table(tmp_path, (Category("one", ("a", "b")),), (row,))
    assert image_grids.read(table, row).size == (20, 50)
    assert image_grids.crops(table, [row], "crops") == image_grids.crops(table, [row], "crops")


def test_of_a_crowd_of_classes_the_most_mistaken_are_shown():
    matrix = np.eye(90, dtype=np.int64) * 50
    matrix[7, 80] = matrix[80, 7] = 9
    group, shown = answer_plots.most_mistaken(Category("kind", tuple(map(str, range(90)))), matrix)
    assert len(group.classes) == plots.CROWD == len(shown)
    assert {"7", "80"} <= set(group.classes)
    assert group.name == "kind, the 40 most mistaken of 90"
    picture = Image.open(io.BytesIO(answer_plots.confusion([group], [shown], "crowd")))
    assert max(picture.size) < 3000


# ------------------------------------------------------------------- missing answers, several answers
MIXED = (
    Category("colour", ("blue", "green", "red")),
    Category("tags", ("warm", "dry", "soft", "never"), multi=True),
    Category("silent", ("yes", "no")),
)


def mixed(count: int = 60, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits [N, 9] and labels [N, 6] of MIXED: a quarter of the answers missing, of the last category all."""
    rng = np.random.default_rng(seed)
    flags = rng.random((count, 4)) < [0.6, 0.3, 0.1, 0]
    labels = np.concatenate([rng.integers(3, size=(count, 1)), flags, np.zeros((count, 1))], axis=1).astype(np.int64)
    for columns in (slice(0, 1), slice(1, 5)):
        labels[rng.random(count) < 0.25, columns] = -1
    labels[3, 2] = -1  # a single flag
    labels[:, 5] = -1
    return rng.normal(size=(count, 9)).astype(np.float32), labels


def test_what_is_counted_of_missing_and_several_answers_agrees_with_training():
    from trainers.evaluation.metrics import scores

    logits, labels = mixed()
    ours, found = confusion.answers(logits, labels, MIXED), scores(logits, labels, MIXED, loss=0.0)
    colours, tags, silent = ours
    assert np.trace(colours) / colours.sum() == pytest.approx(found.overall_accuracy)
    assert np.nanmean(tags.average_precision) == pytest.approx(found.mean_average_precision)
    f1 = 2 * tags.hits.sum() / (tags.true.sum() + tags.predicted.sum())
    assert f1 == pytest.approx(found.micro_f1)
    assert silent.sum() == 0
    assert known_images(labels, MIXED) == list(found.category_answers.values())
    assert [count.sum() for count in class_counts(labels, MIXED)] == [colours.sum(), tags.true.sum(), 0]


def test_precision_and_recall_are_nothing_where_nothing_was_said_or_is_true():
    logits = np.array([[9.0, 9, -9], [9, -9, -9], [-9, -9, -9]])
    category = (Category("tags", ("a", "b", "c"), multi=True),)
    (tags,) = confusion.answers(logits, np.array([[1, 0, 1], [0, 0, 1], [1, 0, -1]]), category)
    np.testing.assert_array_equal(tags.precision, [0.5, 0, math.nan])
    np.testing.assert_array_equal(tags.recall, [0.5, math.nan, 0])
    assert tags.wrong.tolist() == [2, 1, 2]


def test_each_class_of_several_is_a_mistake_of_its_own_and_a_missing_answer_is_none():
    tags = (Category("kind", ("x", "y")), Category("tags", ("a", "b", "c"), multi=True))
    logits = np.array([[5.0, 0, math.log(3), -math.log(9), 4]])
    said, missed = confusion.mistakes(logits, np.array([[-1, 0, 1, -1]]), tags)[::-1]
    assert (said.predicted, said.true, missed.predicted, missed.true) == (0, None, None, 1)
    assert (said.confidence, missed.confidence) == pytest.approx((0.75, 0.1))
    assert (said.loss, missed.loss) == pytest.approx((math.log(4), math.log(10)))


def test_a_mistake_of_several_answers_names_the_class_and_all_that_are_true(tmp_path):
    spans_of = image_grids.spans((Category("tags", ("warm", "dry", "soft"), multi=True),))[0]
    row = Row("a.png", "val", None, (1, 0, 1), "")
    said, missed = confusion.Mistake(0, 0, 1, None, 0.91, 2.4), confusion.Mistake(0, 0, None, 0, 0.03, 3.5)
    assert image_grids.words(spans_of, said, row) == "tags\nsaid dry 0.91\ntrue warm, soft"
    assert image_grids.words(spans_of, missed, row) == "tags\nmissed warm 0.03\ntrue warm, soft"
    none = Row("a.png", "val", None, (0, 0, 0), "")
    assert image_grids.words(spans_of, said, none).endswith("true none of them")


def test_a_metric_that_the_data_lack_is_a_gap_and_no_error():
    lacking = curve_without_accuracy()
    train, val = runs.train_and_val([lacking], "overall_accuracy")
    assert math.isnan(train[0])
    assert math.isnan(val[0])
    assert plots.curves([plots.Curves("overall_accuracy", train, val)], "learning").startswith(b"<svg")


def curve_without_accuracy() -> Epoch:
    from tests.support.records import epoch

    part = epoch(0, 0.5).train.model_copy(update={"overall_accuracy": None})
    return epoch(0, 0.5, train=part, val=part)


@pytest.fixture
def mixed_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    """A table of MIXED with pictures, which a data set of any layout is read as."""
    rows = []
    for split, seed in (("train", 1), ("val", 2), ("test", 3)):
        for number, labels in enumerate(mixed(seed=seed)[1].tolist()):
            path = f"{split}{number}.png"
            Image.new("RGB", (8, 8), (number, 90, 90)).save(tmp_path / path)
            known = None if split == "val" and number % 2 else tuple(labels)
            rows.append(Row(path, split, None, known, path))
    table = Table(tmp_path, MIXED, tuple(rows))
    monkeypatch.setattr(layouts, "read", lambda _config: table)
    return table


def test_figures_of_missing_and_several_answers_are_all_drawn(study, mixed_table):
    folder = finished(study, 0, DataConfig(root=str(mixed_table.root)))
    logits = np.random.default_rng(5).normal(size=(60, 9)).astype(np.float32)
    np.save(folder.val_logits, logits)
    drawing = runs.run(folder)
    assert drawing.troubles == ()
    assert len(drawing.files) == 5
    labels = (folder.figures / "labels.svg").read_text()
    assert "silent: known for 0 of 60 images" in labels
    assert "warm" in labels


def test_a_split_without_any_answer_says_so(study, mixed_table, monkeypatch):
    rows = tuple(replace(row, labels=None) if row.split == "val" else row for row in mixed_table.rows)
    monkeypatch.setattr(layouts, "read", lambda _config: replace(mixed_table, rows=rows))
    folder = finished(study, 0, DataConfig(root=str(mixed_table.root)))
    np.save(folder.val_logits, np.zeros((60, 9), dtype=np.float32))
    assert runs.run(folder).troubles == ("confusion.png, mistakes.png: no image of val has labels",)
