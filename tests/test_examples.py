"""Every example, from search to submission, killed and continued on the way."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trainers.data.demo import draw

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.yaml"))
NEEDS = {"cma_es": "cmaes", "albumentations_pipeline": "albumentations"}
pytestmark = pytest.mark.slow


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SWEEP_")} | {"CI": "1"}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "sweeper.cli", *words]


def sweep(folder: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    found = subprocess.run(
        command(*words), cwd=folder, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert found.returncode == code, found.stderr
    return found


def kill_in_the_middle(folder: Path, words: list[str]) -> None:
    """SIGKILL for the coordinator once trial 1 has an epoch on record."""
    with subprocess.Popen(
        command(*words), cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stderr or ():
            if "trial 1 epoch 1/" in line:
                os.kill(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    draw(folder / "data" / "demo", images=(96, 32, 16))
    for path in (ROOT / "examples").iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    return folder


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_goes_from_search_to_submission_though_it_is_killed(demo, name):
    if (package := NEEDS.get(name)) and importlib.util.find_spec(package) is None:
        pytest.skip(f"needs the package {package}")
    run = ["run", f"{name}.yaml", "--no-mlflow", "--devices", "cpu"]
    kill_in_the_middle(demo, run)
    ended = sweep(demo, *run)
    folder = demo / "mlruns" / "studies" / name
    code = (demo / f"{name}.py").read_bytes()
    assert (folder / "extensions" / f"{name}.py").read_bytes() == code
    board = json.loads(sweep(demo, "leaderboard", name, "--json").stdout)
    states = [trial["state"] for trial in board["trials"]]
    assert "FAILED" not in states
    assert states.count("COMPLETE") >= 2, ended.stderr
    (demo / f"{name}.py").write_text("raise SystemExit('the copies are what counts from now on')\n")
    sweep(demo, "best", name, "--export", "submission", "--devices", "cpu", "--no-mlflow")
    (final,) = (folder / "finals").iterdir()
    assert (final / "submission.zip").is_file()
    assert (final / "extensions" / f"{name}.py").read_bytes() == code
    assert f"`extensions/{name}.py`" in (final / "card.md").read_text()


def test_a_file_that_has_changed_begins_no_trial_of_the_same_study(demo):
    shutil.copytree(demo, demo.parent / "changed", ignore=shutil.ignore_patterns("mlruns"))
    folder = demo.parent / "changed"
    shutil.copy(ROOT / "examples" / "poly_loss.py", folder)
    run = ["run", "poly_loss.yaml", "--no-mlflow", "--devices", "cpu", "--trials", "1", "--set", "train.epochs=1"]
    sweep(folder, *run)
    path = folder / "poly_loss.py"
    path.write_text(path.read_text() + "# another line\n")
    said = sweep(folder, *run, code=2).stderr
    assert "extensions.poly_loss.py: sha256 " in said
    assert "--new-study NAME" in said
    assert len(list((folder / "mlruns" / "studies" / "poly_loss" / "trials").iterdir())) == 1
    assert "its poly_loss.py was different" in sweep(folder, *run, "--new-study", "second").stderr


# ------------------------------------------------------------------------------------------ the notebook
NOTEBOOK = ROOT / "examples/study_and_model.ipynb"
QUICK = ("budget.trials=2", "train.epochs=1", "train.image_size=32")
CELLS = """\
import json, sys
place = {}
for code in json.load(sys.stdin):
    exec(code, place)
print(place["best"].number)
"""


def test_the_notebook_is_valid_and_has_no_outputs():
    """As nbformat 4.5 asks for it."""
    read = json.loads(NOTEBOOK.read_text())
    assert (read["nbformat"], read["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in read["cells"]}) == len(read["cells"])
    for cell in read["cells"]:
        more = {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
        assert cell.keys() == {"cell_type", "id", "metadata", "source"} | more
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_the_cells_of_the_notebook_run_in_order(tmp_path):
    draw(tmp_path / "data/FashionDataset", images=(40, 20, 6), seed=0)
    sets = [word for one in QUICK for word in ("--set", one)]
    sweep(tmp_path, "run", str(ROOT / "search_spaces/quickstart.yaml"), *sets, "--inline", "--no-mlflow")
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    codes = json.dumps(["".join(cell["source"]) for cell in cells])
    words = [sys.executable, "-P", "-c", CELLS]
    ran = subprocess.run(
        words, input=codes, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] in ("0", "1")
