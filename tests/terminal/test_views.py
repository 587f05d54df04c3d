"""What a person sees while a sweep runs: on a terminal, off it, and when it is gone."""

import io
import math
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweeper import text as words
from sweeper.store.paths import StudyFolder
from sweeper.terminal import log, output, summary, views
from sweeper.terminal.log import Log
from sweeper.terminal.summary import Known
from sweeper.trial import Closing, TrialResult
from tests.support.records import epoch, job
from tests.support.screen import FakeTerminal
from trainers.support.position import Position

STUDY = StudyFolder(Path("studies/x"))
KNOWN = Known({"loss.gamma": "gamma"})
CLOCK = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")


@pytest.fixture(autouse=True)
def _a_usual_terminal(monkeypatch):
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "30")


@pytest.fixture
def terminal():
    """Both ends of a terminal: the stream to write to, and a function that reads what has arrived."""
    master, slave = pty.openpty()
    stream = os.fdopen(slave, "w", encoding="utf-8")

    def read() -> str:
        os.set_blocking(master, False)
        parts = []
        try:
            while part := os.read(master, 65536):
                parts.append(part)
        except OSError:
            pass
        return b"".join(parts).decode()

    yield stream, read
    stream.close()
    os.close(master)


def seen(text: str, width: int) -> list[str]:
    """What a terminal shows of `text`."""
    shown = FakeTerminal(width)
    shown.feed(text)
    return shown.lines


def result(number: int, state="COMPLETE", value=0.8217, **changes) -> TrialResult:
    fields = {"metric": "overall_accuracy", "epoch": 2, "epochs": 3, "planned": 3, "seconds": 30.0}
    return TrialResult(number=number, state=state, value=value, backbone="resnet18", **(fields | changes))


def sweep(view: views.View) -> None:
    """Two trials, one of which ends, one epoch of a third after that."""
    first, second, third = (job(STUDY, number, epochs=3) for number in (4, 5, 6))
    view.plan(60)
    view.started(first, "cuda:0")
    view.started(second, "cuda:1")
    for index in range(3):
        view.epoch(first, epoch(index, 0.5 + index / 10), None)
    view.ended(first, result(4))
    view.ended(second, result(5, "FAILED", failure="oom", error="out of GPU memory"))
    view.started(third, "cuda:0")
    view.epoch(third, epoch(0, 0.4), result(4))


# ------------------------------------------------------------------------------------------- plain
def test_an_epoch_is_one_plain_line():
    shown = summary.SweepSummary(total=3, best=result(4))
    shown.start(job(STUDY, 7, epochs=12), "cpu")
    for index in range(5):
        row = shown.epoch(job(STUDY, 7, epochs=12), epoch(index, 0.8123, seconds=60.0), None)
    line = summary.line(shown, row)
    assert line == "trial 7 epoch 5/12 val overall_accuracy 0.8123 (best 0.8217, trial 4) eta 31m"


def test_off_a_terminal_there_are_plain_lines_and_no_escape_codes():
    stream = io.StringIO()
    view = views.choose(stream, known=KNOWN)
    sweep(view)
    view.note("finishing the epoch")
    view.closed(Closing("COMPLETE"))
    assert all(CLOCK.match(line) for line in stream.getvalue().splitlines())
    lines = [CLOCK.sub("", line) for line in stream.getvalue().splitlines()]
    assert lines == [
        "trial 4 starts on cuda:0: backbone resnet18.a1_in1k, gamma 2.57, schedule cosine",
        "trial 5 starts on cuda:1: backbone resnet18.a1_in1k, gamma 2.71, schedule cosine",
        "trial 4 epoch 1/3 val overall_accuracy 0.5000 eta 15m",
        "trial 4 epoch 2/3 val overall_accuracy 0.6000 eta 15m",
        "trial 4 epoch 3/3 val overall_accuracy 0.7000 eta 15m",
        "trial 4 done after 3/3 epochs, val overall_accuracy 0.8217 at epoch 2",
        "trial 5 failed: out of GPU memory",
        "trial 6 starts on cuda:0: backbone resnet18.a1_in1k, gamma 2.86, schedule cosine",
        "trial 6 epoch 1/3 val overall_accuracy 0.4000 (best 0.8217, trial 4) eta 14m",
        "finishing the epoch",
        "1 done, 0 pruned, 1 failed, 58 to go; best val overall_accuracy 0.8217 (trial 4); eta 14m",
    ]


def test_a_run_that_goes_on_has_its_epochs_at_once_and_a_final_says_train(tmp_path):
    kept = [epoch(index, 0.5) for index in range(2)]
    stream = io.StringIO()
    view = views.Plain(stream, Known(history=lambda one: kept if one.trial == 4 else []))
    view.started(job(STUDY, 4, params={}), "cpu")
    view.epoch(job(STUDY, 4), epoch(2, 0.7), None)
    final = job(STUDY, 5, kind="final", params={}, stop_after=3)
    view.started(final, "cpu")
    view.epoch(final, epoch(0, 0.5, val=None), None)
    view.ended(final, result(5, value=0.9))
    assert [CLOCK.sub("", line) for line in stream.getvalue().splitlines()] == [
        "trial 4 resumes after epoch 2/3 on cpu",
        "trial 4 epoch 3/3 val overall_accuracy 0.7000",
        "retraining of trial 5 starts on cpu",
        "retraining of trial 5 epoch 1/3 train overall_accuracy 0.5200",
        "retraining of trial 5 done after 3/3 epochs",
    ]


def test_the_log_has_the_lines_of_all_and_each_run_its_own(tmp_path):
    for number in (4, 5, 6):
        (tmp_path / str(number)).mkdir()
    stream = io.StringIO()
    for view in (
        views.Plain(stream, KNOWN),
        Log(tmp_path / "log.txt", lambda one: tmp_path / f"{one.trial}/log", KNOWN),
    ):
        sweep(view)
        view.note("a\x1b[31m name\nin two lines")
        view.closed(Closing("COMPLETE"))
    said, kept = (CLOCK.sub("", text) for text in (stream.getvalue(), (tmp_path / "log.txt").read_text()))
    assert said == kept
    assert "a\\x1b[31m name\nin two lines\n" in kept
    for number in (4, 5, 6):
        own = CLOCK.sub("", (tmp_path / f"{number}/log").read_text()).splitlines()
        assert own == [line for line in kept.splitlines() if line.startswith(f"trial {number} ")]


def test_the_next_sweep_adds_to_the_log(tmp_path):
    for text in ("first", "second"):
        Log(tmp_path / "log.txt", lambda _: tmp_path / "run").note(text)
    assert CLOCK.sub("", (tmp_path / "log.txt").read_text()) == "first\nsecond\n"


def test_a_log_on_a_full_disk_or_in_a_folder_that_was_taken_away_costs_nothing(tmp_path):
    log.write(Path("/dev/full"), ["lost"])
    log.write(tmp_path / "gone" / "log.txt", ["lost"])
    with pytest.raises(IsADirectoryError):
        log.write(tmp_path, ["a mistake of ours is not hidden"])


@pytest.mark.parametrize(("name", "value"), [("CI", "1"), ("TERM", "dumb"), ("TERM", "unknown")])
def test_a_terminal_that_asks_for_it_gets_plain_lines(terminal, monkeypatch, name, value):
    stream, read = terminal
    monkeypatch.setenv(name, value)
    view = views.choose(stream)
    sweep(view)
    view.closed(Closing("COMPLETE"))
    assert "\x1b" not in read()
    assert isinstance(view, views.Plain)


def test_what_the_encoding_cannot_say_becomes_a_question_mark():
    raw = io.BytesIO()
    view = views.choose(io.TextIOWrapper(raw, encoding="ascii"))
    view.note("Größe ▁▂")
    assert raw.getvalue().endswith(b" Gr??e ??\n")


# -------------------------------------------------------------------------------------------- live
def test_on_a_terminal_there_is_a_row_for_each_running_trial(terminal):
    stream, read = terminal
    view = views.choose(stream, where=["files  mlruns/studies/x"])
    sweep(view)
    view.closed(Closing("COMPLETE"))
    shown = seen(read(), 100)
    assert [line.split()[0] for line in shown if " starts on " in line or " done " in line] == ["trial"] * 4
    _, header, _, row, counts, where = (line for line in shown[shown.index("x: overall_accuracy on val") :] if line)
    assert header.split() == [
        "trial",
        "backbone",
        "device",
        "epoch",
        "within",
        "the",
        "epoch",
        "val",
        "img/s",
        "eta",
        "curve",
    ]
    assert re.fullmatch(r" +6\s+resnet18\s+cuda:0\s+1/3\s+0\.4000\s+1,235\s+20s\s+▁", row)
    assert counts == "1 done, 0 pruned, 1 failed, 58 to go; best val overall_accuracy 0.8217 (trial 4); eta 14m"
    assert where == "files  mlruns/studies/x"


def test_the_table_of_a_retraining_says_train_and_a_trial_that_goes_on_has_its_epochs(terminal):
    stream, read = terminal
    view = views.choose(stream, known=Known(history=lambda _: [epoch(0, 0.5, val=None)]))
    view.started(job(STUDY, 4, epochs=3, kind="final"), "cpu")
    shown = seen(read(), 100)
    resumes = "retraining of trial 4 resumes after epoch 1/3 on cpu: "
    assert f"{resumes}backbone resnet18.a1_in1k, loss.gamma 2.57" in shown[0]
    assert "x: overall_accuracy on train" in shown
    assert any(re.search(r"within the epoch +train +img/s", line) for line in shown)
    assert any(re.search(r"4 +resnet18 +cpu +1/3 +loading +0\.5200 ", line) for line in shown)
    view.closed(Closing("INTERRUPTED"))


def test_two_seeds_of_a_trial_have_a_row_each_until_they_end(terminal, monkeypatch):
    monkeypatch.setattr(views, "FRAMES", 1e9)  # every change is drawn at once
    stream, read = terminal
    view = views.choose(stream)
    own = job(STUDY, 4, kind="final", params={})
    train = own.recipe.train.model_copy(update={"seed": 1000})
    folder = own.folder.with_name("0004-seed1000")
    new = own.model_copy(
        update={"folder": folder, "seed": 1000, "recipe": own.recipe.model_copy(update={"train": train})}
    )
    for each in (own, new):
        view.started(each, "cpu")
        view.epoch(each, epoch(0, 0.5, val=None), None)
    written = read()
    row = re.compile(r" *(4|4 seed 1000) +resnet18 +cpu +\d/3 ")
    assert [found[1] for line in seen(written, 100) if (found := row.match(line))] == ["4", "4 seed 1000"]
    view.ended(new, TrialResult(number=4, state="COMPLETE", metric="overall_accuracy", planned=3, backbone="a"))
    view.epoch(own, epoch(1, 0.5, val=None), None)
    assert [found[1] for line in seen(written + read(), 100) if (found := row.match(line))] == ["4"]
    view.closed(Closing("INTERRUPTED"))


def test_a_bar_says_how_far_the_epoch_is(terminal):
    stream, read = terminal
    view = views.choose(stream)
    view.started(job(STUDY, 4, epochs=3), "cpu")
    view.moved({"trials/0004": Position("train", 3, 8)})
    view.closed(Closing("INTERRUPTED"))
    assert re.search(r"cpu +0/3 +━━━─────── train 38% +- ", "\n".join(seen(read(), 100)))


@pytest.mark.parametrize(("bar", "text"), [("", "val   100%"), ("#-", "########## val   100%")])
def test_a_run_loads_then_its_bar_fills_and_between_epochs_there_is_none(bar, text):
    shown, said = summary.SweepSummary(), []
    row = shown.start(job(STUDY, 4), "cpu")
    for positions in ({}, {"trials/0004": Position("val", 7, 7)}, {}):
        shown.move(positions)
        said.append(summary.batches(row, bar))
    assert said == ["loading", text, ""]


def test_nothing_is_written_while_nothing_is_new(terminal, monkeypatch):
    stream, read = terminal
    monkeypatch.setattr(views, "FRAMES", math.inf)
    view = views.choose(stream)
    sweep(view)
    view.moved({"trials/0006": Position("train", 3, 8)})
    read()
    for _ in range(5):
        view.moved({"trials/0006": Position("train", 3, 8)})
    assert read() == ""
    view.moved({"trials/0006": Position("train", 4, 8)})
    row = read()
    assert "train 50%" in row
    assert row.count("\n") == 6  # down from the first line of the frame to its last
    assert "done" not in row  # the line below, which is the same


def test_a_line_after_the_end_has_no_frame_below_it(terminal, monkeypatch):
    stream, read = terminal
    monkeypatch.setattr(views, "FRAMES", math.inf)
    view = views.choose(stream, where=["files: here"])
    view.started(job(STUDY, 4), "cpu")
    view.closed(Closing("INTERRUPTED"))
    assert read().endswith("\n")
    view.note("MLflow still lacks a part")
    written = read().replace("\r", "")
    assert written.endswith("MLflow still lacks a part\n")
    assert "files: here" not in written


def test_news_that_come_too_fast_are_shown_with_the_next_look(terminal):
    stream, read = terminal
    view = views.choose(stream)
    view.started(job(STUDY, 4), "cpu")
    view.epoch(job(STUDY, 4), epoch(0, 0.4), None)
    assert "0.4000" not in read()
    time.sleep(1 / views.FRAMES)
    view.moved({})
    assert "0.4000" in read()


@pytest.mark.parametrize("widths", [(140, 80, 40), (40, 80, 200), (100, 37, 99), (80, 79, 78)])
def test_a_terminal_that_is_resized_keeps_no_stale_line(terminal, monkeypatch, widths):
    stream, read = terminal
    monkeypatch.delenv("COLUMNS")
    monkeypatch.delenv("LINES")
    monkeypatch.setattr(views, "FRAMES", math.inf)
    shown, view = FakeTerminal(widths[0]), None
    for width in widths:
        monkeypatch.setattr(os, "get_terminal_size", lambda _, width=width: os.terminal_size((width, 50)))
        shown.resize(width)
        view = view or views.choose(stream)
        view.moved({})
        for number, text in enumerate(("first", "second")):
            view.note(f"{text} at {width}")
            view.started(job(STUDY, number, params={}), "cuda:0")
            shown.feed(read())
    whole = "\n".join(shown.lines)
    for once in ("x: overall_accuracy", "0 done, 0 pruned", "eta", *(f"first at {width}" for width in widths)):
        assert whole.count(once) == 1, whole
    assert len([line for line in shown.lines if "0/3" in line]) == 2


@pytest.mark.parametrize("width", [40, 80, 140])
def test_no_line_of_the_table_is_wider_than_the_terminal(terminal, monkeypatch, width):
    stream, read = terminal
    monkeypatch.setenv("COLUMNS", str(width))
    view = views.choose(stream)
    sweep(view)
    view.closed(Closing("COMPLETE"))
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", read())
    assert max(map(len, re.split(r"[\r\n]+", plain))) <= width
    assert "0/3" in plain or "1/3" in plain


def test_no_color_leaves_no_colour_and_no_bold(terminal, monkeypatch):
    stream, read = terminal
    monkeypatch.setenv("NO_COLOR", "1")
    view = views.choose(stream)
    sweep(view)
    view.closed(Closing("COMPLETE"))
    assert not re.search(r"\x1b\[[0-9;]*m", read())


def test_a_terminal_without_unicode_gets_a_table_in_ascii():
    master, slave = pty.openpty()
    with os.fdopen(slave, "w", encoding="ascii") as stream:
        view = views.choose(stream)
        sweep(view)
        view.closed(Closing("COMPLETE"))
        assert os.read(master, 65536).isascii()
    os.close(master)


# --------------------------------------------------------------------------------- nobody listens
def test_a_reader_that_went_away_ends_nothing():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        view = views.choose(stream)
        sweep(view)
        view.closed(Closing("COMPLETE"))


def test_a_stream_that_was_closed_ends_nothing():
    stream = io.StringIO()
    view = views.choose(stream)
    stream.close()
    sweep(view)
    view.closed(Closing("COMPLETE"))


@pytest.mark.process
def test_output_cut_by_head_leaves_no_traceback():
    code = "from sweeper.terminal import output\nfor i in range(20000): output.print_result(f'line {i}')\n"
    code += "output.print_message('ended')"
    pipe = f'set -o pipefail; "{sys.executable}" -c "$CODE" | head -1'
    ended = subprocess.run(["bash", "-c", pipe], env=os.environ | {"CODE": code}, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "line 0\n", "ended\n")


# ------------------------------------------------------------------------------------------ tables
HEADERS, ROWS = ["rank", "value", "backbone"], [["1", "0.8123", "resnet18"], ["10", "0.7", "convnext_tiny"]]


def test_a_table_off_a_terminal_is_aligned_text():
    stream = io.StringIO()
    output.print_table(HEADERS, ROWS, stream)
    assert stream.getvalue() == (
        "rank   value  backbone\n"
        "   1  0.8123  resnet18\n"
        "  10     0.7  convnext_tiny\n"
    )  # fmt: skip


def test_a_table_without_rows_has_its_headers():
    stream = io.StringIO()
    output.print_table(HEADERS, [], stream)
    assert stream.getvalue().split() == HEADERS


def test_a_table_on_a_terminal_says_which_columns_do_not_fit_and_how_to_see_them(terminal, monkeypatch):
    stream, read = terminal
    monkeypatch.setenv("COLUMNS", "20")
    output.print_table([*HEADERS, "n"], [[*row, "3"] for row in ROWS], stream, more="--csv has all")
    text = re.sub(r"\x1b\[\d+m", "", read())
    assert "0.8123" in text
    assert "resnet18" not in text
    assert ["rank", "value", "n"] in [line.split() for line in text.splitlines()]  # n fits, a wider one before not
    assert "no room for backbone; --csv has all" in re.sub(r"\s+", " ", text)


# ------------------------------------------------------------------------------------------- words
@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *[(0, "0s"), (45.4, "45s"), (60, "1m"), (38 * 60 + 20, "38m"), (7500, "2h05m"), (86400 + 3 * 3600, "1d03h")],
        *[(11 * 60 + 40, "12m"), (3580, "1h00m"), (86390, "1d00h"), (59.6, "1m")],
    ],
)
def test_a_duration_is_told_in_its_largest_units(seconds, text):
    assert words.format_duration(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(0.8123, "0.8123"), (1.0, "1.0000"), (0.0, "0.0000"), (None, "-")])
def test_a_value_has_four_decimals_and_no_leading_zero(value, text):
    assert words.format_value(value) == text


def test_a_sparkline_spans_its_own_least_and_greatest():
    assert summary.sparkline([0.1, 0.2, 0.3], 12) == "▁▅█"
    assert summary.sparkline([0.5, 0.5], 12) == "▁▁"
    assert summary.sparkline([0, 1, float("nan"), 2], 2, "_#") == "_#"
    assert summary.sparkline([], 12) == ""


def test_trials_of_an_earlier_sweep_count():
    shown = summary.SweepSummary()
    shown.plan(10, [result(0), result(1, "PRUNED"), result(2, "INTERRUPTED")])
    assert (
        shown.summary() == "1 done, 1 pruned, 0 failed, 8 to go; best val overall_accuracy 0.8217 (trial 0); eta 4m"
    )


def test_two_devices_halve_the_time_left():
    one, two = summary.SweepSummary(), summary.SweepSummary()
    for shown, slots in ((one, 1), (two, 2)):
        shown.plan(100, [result(0)])
        for slot in range(slots):
            shown.start(job(STUDY, slot + 1), str(slot))
    assert two.seconds_left == pytest.approx(one.seconds_left / 2)


def test_hours_end_a_sweep_too():
    shown = summary.SweepSummary()
    shown.plan(None, [result(0)], 600.0)
    assert shown.summary().endswith("eta 10m")
    shown.plan(100, [], 60.0)
    assert shown.summary().endswith("eta 1m")
    shown.plan(2, [], 3600.0)
    assert shown.summary().endswith("eta 30s")


def test_an_unlimited_study_promises_no_end():
    shown = summary.SweepSummary()
    shown.plan(None, [result(0)])
    assert "eta" not in shown.summary()
    assert "to go" not in shown.summary()


def test_the_clock_is_that_of_the_place():
    at = time.mktime((2026, 11, 21, 12, 1, 5, 0, 0, -1))
    assert summary.stamped("trial 3 pruned", at) == "2026-11-21 12:01:05 trial 3 pruned"


# ----------------------------------------------------------------------------------------- counting
def count_up(to: int = 40) -> None:
    with output.counting("decoding images") as count:
        for done in range(1, to + 1):
            count(done, to)


def interrupted_at(done: int) -> None:
    with output.counting("decoding images") as count:
        count(done, 40)
        raise KeyError


def test_long_work_has_a_bar_on_a_terminal_which_ends_full(terminal, monkeypatch):
    stream, read = terminal
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(output, "SOON", 0)
    count_up()
    assert re.search(r"decoding images .*40/40", read())
    assert sys.stderr is stream


@pytest.mark.parametrize("to", [0, 40])
def test_work_that_is_done_at_once_shows_no_bar(terminal, monkeypatch, to):
    stream, read = terminal
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(output, "SOON", 60)
    count_up(to)
    assert read() == ""


@pytest.mark.parametrize(("pause", "lines"), [(0, 40), (60, 0)])
def test_long_work_says_a_line_now_and_then_elsewhere(monkeypatch, pause, lines):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(output, "PROGRESS_INTERVAL_S", pause)
    count_up()
    assert stream.getvalue() == "".join(f"decoding images: {n}/40\n" for n in range(1, lines + 1))


def test_a_terminal_that_is_gone_does_not_end_long_work(monkeypatch):
    master, slave = pty.openpty()
    stream = os.fdopen(slave, "w", encoding="utf-8")
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(output, "SOON", 0)
    with output.counting("decoding images") as count:
        count(1, 40)
        os.close(master)
        count(40, 40)
    stream.close()


def test_an_error_in_long_work_leaves_no_bar_behind(terminal, monkeypatch):
    stream, read = terminal
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(output, "SOON", 0)
    with pytest.raises(KeyError):
        interrupted_at(1)
    read()
    output.print_message("next")
    assert read() == "next\r\n"
