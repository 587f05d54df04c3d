"""Files of ours that somebody else has changed: a message that names the file, exit 3, and no traceback."""

import shutil
from pathlib import Path

import pytest
from lab import Lab, make

FILES = [
    "study.json",
    "mlflow.json",
    "ended.jsonl",
    "resume",
    "seconds",
    "lock",
    "trials/0000/config.json",
    "trials/0000/result.json",
    "trials/0000/history.jsonl",
    "final/*/config.json",
    "final/*/result.json",
    "final/*/scores.jsonl",
]
CONTENTS = {
    "a list": b"[1, 2]\n",
    "a number": b"5\n",
    "deep": b"[" * 200_000 + b"\n",
    "not text": b'\xff\xfe{"a": 1',
    "other keys": b'{"schema_version": 1, "identity": 3, "budget": [], "study": {}, "number": "x"}\n',
    "empty": b"",
    "large": b" " * (65 << 20),
}
COMMANDS = (["status"], ["leaderboard"], ["best"], ["run", "space.yaml", "--devices", "cpu"])
TRUTH = ("study.json", "trials/0000/result.json", "final/*/scores.jsonl")  # what is worked out from nothing else


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, garments: Path) -> Lab:
    lab = make(tmp_path_factory.mktemp("done"), garments, trials=2, epochs=2, env={"SWEEP_FAKE_SECONDS": "0"})
    assert lab.run("--then-best").code == 0
    assert lab.sweep("score", "question", "0.5").code == 0
    return lab


@pytest.mark.fault("X-changed")
@pytest.mark.parametrize(
    "name", [one if one == "study.json" else pytest.param(one, marks=pytest.mark.many) for one in FILES]
)
@pytest.mark.parametrize(
    "kind", [one if one == "deep" else pytest.param(one, marks=pytest.mark.many) for one in CONTENTS]
)
def test_a_changed_file_is_named_or_made_anew(done, tmp_path, case, name, kind):
    (path,) = done.study.glob(name)
    shutil.copy(path, tmp_path / "kept")
    codes = set()
    try:
        for words in COMMANDS:
            path.write_bytes(CONTENTS[kind])
            ended = done.sweep(*words)
            codes.add(ended.code)
            assert "Traceback" not in ended.err
            assert ended.code in (0, 3), ended.err
            assert ended.code == 0 or str(path) in ended.err
    finally:
        shutil.copy(tmp_path / "kept", path)
    if name in TRUTH and kind not in ("empty", "large"):
        assert 3 in codes
