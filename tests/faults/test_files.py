"""Files that were torn or damaged between two calls: histories and checkpoints."""

import random
import shutil
from pathlib import Path

import pytest

from sweeper.store import records
from sweeper.store.paths import RunFolder
from tests.faults.invariants import check
from tests.faults.test_kills import EPOCH, LAST, OFTEN, checkpoints
from tests.support.processes import Lab, make, seeds

pytestmark = pytest.mark.process


def stopped(root: Path, garments: Path, *, epochs: int, env: dict[str, str]) -> tuple[Lab, Path]:
    """A sweep killed when its second trial had some epochs; and the folder of that trial."""
    lab = make(root, garments, env=env, search="{sampler: tpe, pruner: none}", trials=3, epochs=6)
    running = lab.begin("--no-mlflow")
    running.until(rf"trial 1{EPOCH}".replace(r"\d+", str(epochs)))
    running.kill()
    running.end()
    return lab, lab.trials[1]


@pytest.mark.fault("E3")
@pytest.mark.parametrize("seed", seeds(6))
def test_a_history_cut_anywhere_in_its_last_two_lines_is_mended(tmp_path, garments, reference, case, seed):
    """Every byte is tried; at a random one the sweep continues."""
    lab, folder = stopped(tmp_path, garments, epochs=3, env=checkpoints(seed))
    run, whole = RunFolder(folder), (folder / "history.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    kept = len(lines) - 2
    for cut in range(len(b"".join(lines[:kept])), len(whole)):
        run.history.write_bytes(whole[:cut])
        epochs = records.repair(run)
        assert len(epochs) == whole[:cut].count(b"\n")
        assert run.history.read_bytes() == b"".join(lines[: len(epochs)])
    run.history.write_bytes(whole[: -random.Random(f"E3 {seed}").randrange(1, len(lines[-1]) + len(lines[-2]))])
    before, ended = lab.results(), lab.run("--no-mlflow", SWEEP_FAKE_SECONDS="0")
    same = reference(search="{sampler: tpe, pruner: none}", trials=3, epochs=6)
    check(case, lab, before=before, ended=ended, last=LAST, same_as=same, mlflow=False)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0x80
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.fault("E4")
@pytest.mark.parametrize(
    "damage", [flip, *(pytest.param(how, marks=pytest.mark.many) for how in (cut, empty, Path.unlink))]
)
def test_a_damaged_checkpoint_begins_its_trial_anew_and_says_so(tmp_path, garments, reference, case, damage):
    lab, folder = stopped(tmp_path, garments, epochs=3, env=OFTEN)
    damage(folder / "last.ckpt")
    before, ended = lab.results(), lab.run("--no-mlflow", SWEEP_FAKE_SECONDS="0")
    assert "trial 1 restarts from scratch: its checkpoint is unusable" in ended.err
    assert damage is Path.unlink or "last.ckpt: not usable, starting again" in (folder / "log.txt").read_text()
    same = reference(search="{sampler: tpe, pruner: none}", trials=3, epochs=6)
    check(case, lab, before=before, ended=ended, last=LAST, same_as=same, mlflow=False)


@pytest.mark.fault("E4")
@pytest.mark.many
def test_a_whole_run_folder_that_is_gone_is_drawn_anew_under_its_number(tmp_path, garments, reference, case):
    lab, folder = stopped(tmp_path, garments, epochs=3, env=OFTEN)
    shutil.rmtree(folder)
    before, ended = lab.results(), lab.run("--no-mlflow", SWEEP_FAKE_SECONDS="0")
    same = reference(search="{sampler: tpe, pruner: none}", trials=3, epochs=6)
    check(case, lab, before=before, ended=ended, last=LAST, same_as=same, mlflow=False)
