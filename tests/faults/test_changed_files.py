"""Files of ours that somebody else has changed: a message that names the file, exit 3, and no traceback."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import Lab, make

pytestmark = pytest.mark.process

FILES = [
    "study.json",
    "mlflow.json",
    "trial_index.jsonl",
    "resume_command",
    "elapsed_seconds",
    "lock",
    "trials/0000/config.json",
    "trials/0000/result.json",
    "trials/0000/history.jsonl",
    "finals/*/config.json",
    "finals/*/result.json",
    "finals/*/scores.jsonl",
]
CONTENTS = {
    "a list": b"[1, 2]\n",
    "a number": b"5\n",
    "deep": b"[" * 200_000 + b"\n",
    "not text": b'\xff\xfe{"a": 1',
    "other keys": b'{"schema_version": 2, "identity": 3, "budget": [], "study": {}, "number": "x"}\n',
    "empty": b"",
    "large": b" " * (65 << 20),
}
COMMANDS = (["status"], ["leaderboard"], ["best"], ["run", "space.yaml", "--devices", "cpu"])
FILLED = [kind for kind in CONTENTS if kind not in ("empty", "large")]  # blank is as good as none
TELLING = (["status"], ["run", "space.yaml", "--devices", "cpu", "--no-mlflow"])
TRUTH = ("study.json", "trials/0000/result.json", "finals/*/scores.jsonl")  # what is worked out from nothing else


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, garments: Path) -> Lab:
    lab = make(tmp_path_factory.mktemp("done"), garments, trials=2, epochs=2, env={"SWEEP_FAKE_SECONDS": "0"})
    assert lab.run("--then-best").code == 0
    assert lab.sweep("score", "question", "0.5").code == 0
    return lab


def once(
    quick: tuple[str, str], names: Sequence[str], kinds: Sequence[str], commands: Sequence[list[str]]
) -> list[Any]:
    """Each file with each content and one command, which change in turn so that every file meets every command."""
    pairs = [(name, kind, n + m) for n, name in enumerate(names) for m, kind in enumerate(kinds)]
    return [
        pytest.param(
            name,
            kind,
            commands[turn % len(commands)],
            id=f"{name}-{kind}-{commands[turn % len(commands)][0]}",
            marks=[] if (name, kind) == quick else pytest.mark.many,
        )
        for name, kind, turn in pairs
    ]


@pytest.fixture
def changed(done: Lab, tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    """Puts a content in a file's place until the test is over."""
    kept: dict[Path, Path] = {}

    def change(name: str, kind: str) -> Path:
        (path,) = done.study.glob(name)
        kept[path] = tmp_path / "kept"
        shutil.copy(path, kept[path])
        path.write_bytes(CONTENTS[kind])
        return path

    yield change
    for path, copy in kept.items():
        shutil.copy(copy, path)


@pytest.mark.fault("X-changed")
@pytest.mark.parametrize(("name", "kind", "words"), once(("lock", "deep"), FILES, [*CONTENTS], COMMANDS))
def test_a_changed_file_is_named_or_made_anew(done, changed, case, name, kind, words):
    path = changed(name, kind)
    ended = done.sweep(*words)
    assert "Traceback" not in ended.err
    assert ended.code in (0, 3), ended.err
    assert ended.code == 0 or str(path) in ended.err


@pytest.mark.fault("X-changed")
@pytest.mark.parametrize(("name", "kind", "words"), once(("study.json", "deep"), TRUTH, FILLED, TELLING))
def test_what_is_worked_out_from_nothing_else_is_not_passed_over(done, changed, case, name, kind, words):
    path = changed(name, kind)
    ended = done.sweep(*words)
    assert ended.code == 3, ended.err
    assert str(path) in ended.err
    assert "Traceback" not in ended.err
