"""The command line: what a person types, reads, and gets as an exit code."""

import json
import os
import pty
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer

from sweeper import cli
from sweeper.store import lock
from sweeper.store.paths import StudyFolder
from tests.support.cli import SPACE, command, environment, lay_out, numbers, sweep

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[1]
ESCAPE = "\x1b"
STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set and a search space, in which nothing ran yet; not to be written to."""
    return lay_out(tmp_path_factory.mktemp("empty"))


@pytest.fixture(scope="module")
def swept(
    empty: Path, tmp_path_factory: pytest.TempPathFactory, database: Path
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The same after `sweep run`, with MLflow and a secret about, and what that said; not to be written to."""
    folder = tmp_path_factory.mktemp("swept") / "here"
    shutil.copytree(empty, folder)
    (folder / "mlruns").mkdir()
    shutil.copy(database, folder / "mlruns")
    return folder, sweep(folder, "run", "space.yaml", HF_TOKEN="canary-8472")  # noqa: S106  made up


@pytest.fixture
def fresh(empty: Path, tmp_path: Path) -> Path:
    """A copy of the empty folder."""
    return Path(shutil.copytree(empty, tmp_path / "here"))


@pytest.fixture
def played(swept: tuple[Path, object], tmp_path: Path) -> Path:
    """A copy of the swept folder."""
    return Path(shutil.copytree(swept[0], tmp_path / "here"))


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# ------------------------------------------------------------------------------------------ help and errors
def cpu_seconds(*words: str) -> float:
    """The least of three: CPU time is noisy upwards only."""
    found = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


def test_help_takes_a_quarter_of_a_second_at_most():
    assert cpu_seconds("-m", "sweeper.cli", "--help") - cpu_seconds("-c", "pass") <= 0.25


def test_every_command_has_a_help_that_fits_its_list(tmp_path):
    said = sweep(tmp_path, "--help").stdout
    names = "run|plan|status|leaderboard|best|score|report|ui|doctor|data"
    listed = re.findall(rf"^  ({names}) +(\S.*)$", said, re.MULTILINE)
    assert len(listed) == 10
    assert all(not text.endswith("...") for _, text in listed)


def commands() -> Iterator[tuple[str, Any]]:
    """Every command by what a person types, such as data check."""
    for name, one in typer.main.get_command(cli.app).commands.items():
        yield from (
            ((f"{name} {word}", each) for word, each in one.commands.items()) if name == "data" else [(name, one)]
        )


EXAMPLES = [line for _, command in commands() for line in command.epilog.splitlines()]
SHOWN_ALONE = ("sweep ui", "sweep ui quickstart --port 5001", "sweep rm other")  # wait for Ctrl-C or an answer


@pytest.mark.parametrize(("name", "command"), [pytest.param(*one, id=one[0]) for one in commands()])
def test_the_help_of_a_command_ends_with_two_examples_of_it(name, command):
    lines = command.get_help(command.make_context(f"sweep {name}", [], resilient_parsing=True)).splitlines()
    assert lines[-3] == "Examples:"
    for line in lines[-2:]:
        assert line.startswith(f"  sweep {name}")
        given = shlex.split(line)[1 + len(name.split()) :]
        command.make_context(f"sweep {name}", given)  # every option in it is one


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_examples_of_all_commands_work_one_after_the_other(tmp_path):
    space = (ROOT / "search_spaces" / "quickstart.yaml").read_text()
    (tmp_path / "search_spaces").mkdir()
    for before, now in (("data/FashionDataset", "data/demo"), ("trials: 8", "trials: 2")):
        space = space.replace(before, now)
    (tmp_path / "search_spaces" / "quickstart.yaml").write_text(space)
    first = [
        "sweep data demo",
        "sweep run search_spaces/quickstart.yaml",
        "sweep best quickstart --export submission",
    ]
    last = ["sweep rm other --yes"]
    between = [line for line in EXAMPLES if line not in (*first, *last, *SHOWN_ALONE)]
    starting = [line for line in between if line.startswith("sweep run")]
    rest = [line for line in between if not line.startswith(("sweep run", "sweep init"))]
    for number, line in enumerate([*first, *starting, *rest, *last]):
        if number == 1:
            as_photos(tmp_path / "data" / "demo", tmp_path / "photos")
        ended = sweep(tmp_path, *shlex.split(line)[1:], SWEEP_TRAINER="")
        fine = (0, 3) if line.startswith("sweep doctor") else (0,)  # a machine may lack something
        assert ended.returncode in fine, (line, ended.stderr)


def as_photos(demo: Path, folder: Path) -> None:
    """A folder of photographs for each of two classes, made of images of the demo set."""
    for number, image in enumerate(sorted(demo.rglob("*.jpg"))[:20]):
        place = folder / ("shirt", "skirt")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, place)


@pytest.mark.parametrize(
    ("words", "what", "remedy"),
    [
        (
            "run s.yaml --gpus 2",
            "no option --gpus",
            "choose devices with sweep run --devices 0,1 or --devices cpu",
        ),
        ("run s.yaml --seed 2", "no option --seed", "--set search.seed=1 for the sampler, --set train.seed=1"),
        ("run s.yaml --epochs 2", "no option --epochs", "--set train.epochs=VALUE"),
        ("plan s.yaml --lr 2", "no option --lr", "--set train.optimizer.lr=VALUE"),
        ("run s.yaml --hour 2", "no option --hour", "did you mean --hours?"),
        ("run", "missing argument 'SPACE.yaml'", "run --help"),
        ("data chek", "no such command 'chek'", "data --help"),
        ("best --export onnx", "'onnx' is not 'submission'", "best --help"),
        ("run s.yaml --set epochs=3", "unknown key 'epochs'", "did you mean 'train.epochs'?"),
    ],
)
def test_a_slip_in_the_words_of_a_command_is_told_as_every_other_error(tmp_path, words, what, remedy):
    (tmp_path / "s.yaml").write_text(SPACE)
    ended = sweep(tmp_path, *words.split())
    assert ended.returncode == 2
    first, place, help = ended.stderr.splitlines()
    assert (first[:7], place[:6], help[:6]) == ("error: ", "  --> ", "help: ")
    assert what in first
    assert remedy in help


@pytest.mark.parametrize("words", [["status"], ["doctor"], ["run", "space.yaml"], ["data", "check", "space.yaml"]])
def test_json_before_a_command_is_not_passed_over_in_silence(tmp_path, words):
    ended = sweep(tmp_path, "--json", *words)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "--json" in ended.stderr
    assert "after the command" in ended.stderr


@pytest.mark.parametrize(
    ("typed", "proposed"),
    [
        ("sweep status que", "question"),
        ("sweep status other", ""),
        ("sweep show question/", "question/0 question/1 question/2"),
        ("sweep predict q", "question"),
        ("sweep predict question/1", "question/1"),
        (
            "sweep run space.yaml --set train.image_s",
            "train.image_size= train.image_size.height= train.image_size.width=",
        ),
        ("sweep run space.yaml --set train.optimizer.lr", "train.optimizer.lr="),
        ("sweep leader", "leaderboard"),
    ],
)
def test_a_shell_completes_commands_studies_trials_and_keys(swept, typed, proposed):
    asked = environment(_SWEEP_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=str(len(typed.split()) - 1))
    program = [Path(sys.executable).parent / "sweep"]  # as the shell calls it
    ended = subprocess.run(program, cwd=swept[0], env=asked, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == proposed.split()


def test_the_version_is_that_of_the_project(tmp_path):
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    ended = sweep(tmp_path, "--version")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"sweep {project['version']}\n", "")


def test_a_misspelt_command_is_answered_with_the_right_one(tmp_path):
    ended = sweep(tmp_path, "statsu")
    assert ended.returncode == 2
    assert "Did you mean 'status'?" in ended.stderr


def test_a_slip_in_the_file_is_one_message_with_its_place_and_remedy(fresh):
    (fresh / "space.yaml").write_text(SPACE.replace("image_size", "imagesize"))
    ended = sweep(fresh, "run", "space.yaml")
    assert ended.returncode == 2
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert lines[0] == "error: unknown key 'imagesize' in train"
    assert lines[1] == "  --> space.yaml:8:3"
    assert lines[2].startswith("help: did you mean 'image_size'")
    assert not (fresh / "mlruns" / "studies").exists()


def test_a_missing_data_set_ends_with_3(tmp_path):
    (tmp_path / "space.yaml").write_text(SPACE)
    ended = sweep(tmp_path, "run", "space.yaml")
    assert ended.returncode == 3
    assert ended.stderr.startswith("error: no such folder\n  --> garments\n")


def test_every_fault_of_the_data_is_printed_before_a_study_exists(fresh):
    labels = fresh / "garments" / "split" / "train_attr.txt"
    lines = labels.read_text().splitlines()
    labels.write_text("\n".join(["9 0 0 0 0 0", "0 0 0", *lines[2:]]) + "\n")
    (fresh / "garments" / "img" / "00007.jpg").write_bytes(b"<html>")
    ended = sweep(fresh, "run", "space.yaml")
    assert ended.returncode == 3
    assert ended.stderr.startswith("error: 3 faults\n")
    for place in ("train_attr.txt:1", "train_attr.txt:2", "train.txt:8"):
        assert place in ended.stderr
    assert not (fresh / "mlruns" / "studies").exists()


def test_data_check_reports_the_same_as_json(fresh):
    (fresh / "garments" / "img" / "00007.jpg").write_bytes(b"<html>")
    ended = sweep(fresh, "data", "check", "space.yaml", "--json")
    document = json.loads(ended.stdout)
    assert ended.returncode == 3
    assert (document["schema_version"], document["ok"], len(document["faults"])) == (1, False, 1)


def test_what_nobody_foresaw_keeps_its_traceback(played):
    """Such as a folder where a result belongs."""
    result = played / "mlruns" / "studies" / "question" / "trials" / "0000" / "result.json"
    result.unlink()
    result.mkdir()
    ended = sweep(played, "status")
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr


# ------------------------------------------------------------------------------------------ running
def test_a_sweep_ends_with_how_it_stands_and_the_commands_that_come_next(swept):
    _, ended = swept
    assert ended.returncode == 0
    assert ended.stdout == ""
    said = ended.stderr.splitlines()
    best = next(number for number, line in enumerate(said) if line.startswith("best:   overall_accuracy 0."))
    assert said[best + 1].startswith("rank  trial   value ")
    assert said[-4:] == [
        "files:  mlruns/studies/question",
        "browse: sweep ui question",
        "report: sweep report question",
        "next:   sweep best question --export submission",
    ]


def test_the_log_tells_a_sweep_from_its_beginning_to_its_end_as_its_output_does(swept):
    folder, ended = swept
    study = folder / "mlruns" / "studies" / "question"
    kept = [STAMP.sub("", line) for line in (study / "log.txt").read_text().splitlines()]
    assert all(STAMP.match(line) for line in (study / "log.txt").read_text().splitlines())
    said = [STAMP.sub("", line) for line in ended.stderr.splitlines()]
    assert kept == said[len(said) - len(kept) :]
    words = [
        "data: ",
        "study:   question, space.yaml",
        "metric:  overall_accuracy on val",
        "devices: cpu",
        "budget:  3 t",
    ]
    words += [
        "files:   mlruns",
        "browse:  sweep ui",
        "stop:    Ctrl-C",
        "trial 0 starts on cpu: ",
        "trial 0 epoch 1/4 val",
    ]
    words += ["trial 0 done after 4/4 epochs", "trial 1 starts", "best:   ", "report: ", "next:   "]
    places = [next(number for number, line in enumerate(kept) if line.startswith(word)) for word in words]
    assert places == sorted(places)
    own = [STAMP.sub("", line) for line in (study / "trials" / "0000" / "log.txt").read_text().splitlines()]
    assert own == [line for line in kept if line.startswith("trial 0 ")]


def test_a_secret_of_the_environment_is_written_nowhere(swept):
    folder, ended = swept
    assert "canary-8472" not in ended.stderr
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "mlflow.db" for path in files)
    assert not [path for path in files if b"canary-8472" in path.read_bytes()]


def test_a_scheduler_is_told_what_happens_as_json(fresh):
    words = ["--no-mlflow", "--inline", "--trials", "1", "--then-best", "--log-format", "json"]
    ended = sweep(fresh, "run", "space.yaml", *words)
    assert ended.returncode == 0, ended.stderr
    told = [json.loads(line) for line in ended.stdout.splitlines()]
    trial = ["trial_begin", *["epoch"] * 4, "trial_end"]
    assert [line["event"] for line in told] == ["begin", *trial, "end", *trial, "final"]
    assert {line["study"] for line in told} == {"question"}
    end = next(line for line in told if line["event"] == "end")
    assert (end["exit_code"], end["state"], end["best"]["number"]) == (0, "COMPLETE", 0)
    assert "best:" not in ended.stderr
    study = fresh / "mlruns" / "studies" / "question"
    assert "next: " not in (study / "log.txt").read_text()
    assert (study / "resume_command").read_text().endswith("--log-format json --inline --no-mlflow --then-best\n")


def test_a_format_that_nobody_knows_is_refused(empty):
    ended = sweep(empty, "run", "space.yaml", "--log-format", "xml")
    assert ended.returncode == 2
    assert "'xml' is not text or json" in ended.stderr


@contextmanager
def sweeping(folder: Path, trials: int, seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    """A sweep whose epochs take so long, from its first trial until it has ended."""
    words = command("run", "space.yaml", "--no-mlflow", "--trials", str(trials))
    slowly = environment(SWEEP_FAKE_SECONDS=str(seconds))
    with subprocess.Popen(words, cwd=folder, env=slowly, stderr=subprocess.DEVNULL) as process:
        until((folder / "mlruns" / "studies" / "question" / "running.json").exists)
        yield process


@pytest.mark.slow
def test_a_sweep_can_be_watched_from_another_process_until_it_ends(fresh):
    with sweeping(fresh, trials=2, seconds=0.5) as process:
        watching = sweep(fresh, "status", "--watch")
    assert process.returncode == watching.returncode == 0
    said = [STAMP.sub("", line) for line in watching.stdout.splitlines()]
    assert any(line.startswith("trial 1 epoch 4/4 val overall_accuracy ") for line in said)
    assert any(line.startswith("trial 1 done after 4/4 epochs") for line in said)
    assert "study    question: complete, 2 of 2 trials started" in said
    assert sweep(fresh, "status", "--watch").stdout == sweep(fresh, "status").stdout  # nothing runs


@pytest.mark.slow
def test_whoever_watches_may_leave_and_the_sweep_goes_on(fresh):
    with sweeping(fresh, trials=1, seconds=2) as process:
        look = command("status", "--watch")
        with subprocess.Popen(look, cwd=fresh, env=environment(), stdout=subprocess.PIPE, text=True) as watching:
            assert watching.stdout
            next(line for line in watching.stdout if " trial 0 " in line)
            watching.send_signal(signal.SIGINT)
            rest = watching.communicate(timeout=30)[0]
    assert watching.returncode == 0
    assert "study    question: running" in rest
    assert process.returncode == 0


def test_a_finished_study_is_not_trained_again(played):
    ended = sweep(played, "run", "space.yaml", "--no-mlflow")
    assert ended.returncode == 0
    assert "nothing was left to do" in ended.stderr
    assert len(list((played / "mlruns" / "studies" / "question" / "trials").iterdir())) == 3


def test_more_trials_can_be_asked_for(played):
    ended = sweep(played, "run", "space.yaml", "--trials", "4", "--no-mlflow")
    assert ended.returncode == 0
    assert "study:   question, space.yaml; 3 trials on record" in ended.stderr
    assert (played / "mlruns/studies/question/resume_command").read_text() == (
        "sweep run space.yaml --trials 4 --no-mlflow\n"
    )
    assert len(list((played / "mlruns" / "studies" / "question" / "trials").iterdir())) == 4


def test_a_changed_question_is_refused_with_the_difference(played):
    ended = sweep(played, "run", "space.yaml", "--set", "train.epochs=5", "--no-mlflow")
    assert ended.returncode == 2
    assert "train.epochs: 4 -> 5" in ended.stderr
    assert "--new-study NAME" in ended.stderr


def test_a_new_study_asks_the_changed_question(played):
    words = ["--set", "train.epochs=1", "--new-study", "other", "--inline", "--no-mlflow"]
    ended = sweep(played, "run", "space.yaml", *words)
    assert ended.returncode == 0
    command = f"sweep run space.yaml {' '.join(words[:2])} --new-study other --inline --no-mlflow\n"
    assert (played / "mlruns/studies/other/resume_command").read_text() == command
    assert json.loads(sweep(played, "status", "--json").stdout)["study"] == "other"


def test_a_study_that_another_sweep_holds_ends_with_4(played):
    held = lock.acquire(StudyFolder(played / "mlruns" / "studies" / "question").lock)
    ended = sweep(played, "run", "space.yaml", "--no-mlflow")
    held.release()
    assert ended.returncode == 4
    assert f"process {os.getpid()} on " in ended.stderr


def test_a_sweep_without_a_completed_trial_ends_with_5_and_names_a_log(fresh):
    ended = sweep(fresh, "run", "space.yaml", "--set", "train.backbone=broken.nan", "--no-mlflow")
    assert ended.returncode == 5
    assert (
        "failed: the loss is nan in epoch 2; its log is mlruns/studies/question/trials/0002/log.txt" in ended.stderr
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_sweep_after_the_epoch_and_the_same_command_goes_on(fresh, number, code):
    history = fresh / "mlruns" / "studies" / "question" / "trials" / "0000" / "history.jsonl"
    words = command("run", "space.yaml", "--no-mlflow")
    with subprocess.Popen(
        words, cwd=fresh, env=environment(SWEEP_FAKE_SECONDS="0.3"), stderr=subprocess.PIPE, text=True
    ) as process:
        until(lambda: history.exists() and bool(numbers(history)))
        process.send_signal(number)
        said = process.communicate(timeout=30)[1]
    assert process.returncode == code
    assert "resume: sweep run space.yaml --no-mlflow" in said
    assert len(numbers(history)) < 4
    assert sweep(fresh, "run", "space.yaml", "--no-mlflow").returncode == 0
    assert numbers(history) == [1, 2, 3, 4]


# ------------------------------------------------------------------------------------------ reporting
@pytest.mark.parametrize(
    "words", [["--json"], ["status", "--json"], ["leaderboard", "--top", "2", "--json"], ["best", "--json"]]
)
def test_what_reports_prints_one_document_with_its_version(swept, words):
    ended = sweep(swept[0], *words)
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["schema_version"] == 1


def test_the_leaderboard_is_cut_to_its_top(swept):
    assert len(sweep(swept[0], "leaderboard", "--top", "2").stdout.splitlines()) == 3


def test_the_doctor_looks_at_everything(tmp_path):
    ended = sweep(tmp_path, "doctor", "--json")
    document = json.loads(ended.stdout)
    assert ended.returncode == (0 if document["ok"] else 3)
    names = {finding["name"] for finding in document["findings"]}
    assert {"python", "torch", "optuna", "mlflow", "disk", "hub", "ray"} <= names


def test_a_listener_that_goes_away_is_no_trouble(swept):
    with subprocess.Popen(
        command("leaderboard"), cwd=swept[0], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


@pytest.mark.parametrize("changes", [{"NO_COLOR": "1", "TERM": "dumb"}, {"CI": "1", "LANG": "C"}])
def test_a_plain_terminal_of_40_columns_gets_no_escape_codes(played, changes):
    reader, writer = pty.openpty()
    with os.fdopen(reader, "rb", buffering=0) as screen:
        with subprocess.Popen(
            command("run", "space.yaml", "--trials", "4", "--no-mlflow"),
            cwd=played,
            env=environment(COLUMNS="40", **changes),
            stdout=writer,
            stderr=writer,
        ) as process:
            os.close(writer)
            said = _all(screen)
        assert process.returncode == 0
    assert "trial 3 epoch 4/4" in said
    assert ESCAPE not in said


def _all(screen: "object") -> str:
    """What a terminal shows until nobody writes to it any more."""
    parts = []
    while True:
        try:
            part = screen.read(4096)  # type: ignore[attr-defined]
        except OSError:  # Linux's way to say that the other side is closed
            part = b""
        if not part:
            return b"".join(parts).decode()
        parts.append(part)


def test_alone_it_says_what_to_do_first(fresh):
    assert sweep(fresh).stdout.splitlines()[-1].startswith("next: sweep run PHOTOS --hours 1")
    (fresh / "search_spaces").mkdir()
    (fresh / "search_spaces" / "quickstart.yaml").write_text(SPACE.replace("garments", "data/demo"))
    assert sweep(fresh).stdout.splitlines()[-1] == "next: sweep data demo data/demo"


def test_a_score_is_noted_beside_the_submission_and_shown(played):
    assert sweep(played, "score", "question", "0.85").returncode == 2
    assert sweep(played, "best", "--export", "submission", "--no-mlflow").returncode == 0
    (archive,) = (played / "mlruns").rglob("submission.zip")
    assert sweep(played, "score", str(archive), "0.85", "--note", "board 2023").returncode == 0
    assert sweep(played, "score", "question", "0.86").returncode == 0
    assert "scored 0.85 board 2023, 0.86" in sweep(played, "status").stdout
    values = [json.loads(line)["value"] for line in (archive.parent / "scores.jsonl").read_text().splitlines()]
    assert values == [0.85, 0.86]
    table = sweep(played, "leaderboard").stdout
    assert "final models:" in table
    assert "board 2023" in table
    (known,) = json.loads(sweep(played, "leaderboard", "--json").stdout)["finals"]
    assert (known["number"], [score["value"] for score in known["scores"]]) == (1, [0.85, 0.86])
    again = sweep(played, "best", "--export", "submission", "--again", "--no-mlflow")
    assert "identical to that of final 1 of question (scored 0.85, 0.86)" in again.stdout


def test_a_file_where_results_belong_ends_with_3_and_no_traceback(fresh):
    (fresh / "mlruns").write_text("not a folder")
    ended = sweep(fresh, "run", "space.yaml", "--no-mlflow")
    assert ended.returncode == 3
    assert "a file exists where a folder is needed" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_file_where_the_folder_of_a_page_belongs_ends_with_3_and_no_traceback(played):
    ended = sweep(played, "report", "--output", "space.yaml/page.html")
    assert ended.returncode == 3
    assert "a file exists where a folder is needed" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_epoch_that_counts_has_one_number_in_every_document(swept):
    documents = {
        name: json.loads(sweep(swept[0], name, "--json").stdout) for name in ("status", "leaderboard", "best")
    }
    number = documents["status"]["best"]["number"]
    rows = {row["trial"]: row["epoch"] for row in documents["leaderboard"]["trials"]}
    assert documents["status"]["best"]["epoch"] == rows[number] == documents["best"]["result"]["epoch"] == 4


@pytest.mark.parametrize("words", [(), ("status",), ("leaderboard",), ("best",), ("run", "space.yaml")], ids=str)
def test_a_study_of_an_earlier_version_is_said_to_be_one(swept, tmp_path, words):
    """Its epochs counted from 0, and its weights were those of the best one."""
    folder = Path(shutil.copytree(swept[0], tmp_path / "here"))
    study = folder / "mlruns" / "studies" / "question"
    (study / "trial_index.jsonl").unlink()
    for trial in study.glob("trials/*"):
        for name, new, old in (("result.json", '"epoch":', '"best_epoch":'), ("config.json", '"last"', '"metric"')):
            (trial / name).write_text((trial / name).read_text().replace(new, old))
        (trial / "history.jsonl").write_text((trial / "history.jsonl").read_text().replace('"number":', '"index":'))
        (trial / "model.safetensors").rename(trial / "best.safetensors")
    said = sweep(folder, *words, "--no-mlflow") if "run" in words else sweep(folder, *words)
    assert said.returncode == 3
    assert "by another version of sweep" in said.stderr
    assert "Traceback" not in said.stderr
