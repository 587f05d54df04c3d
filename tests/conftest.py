"""What many tests need: a folder of their own to run in, and a tiny data set to train on."""

import csv
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainers.config import DataConfig

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded: as workers have it, see executors/local
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell leaves it for what it runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 60, 220)}
SHARED = Path(__file__).parents[2] / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--table", default="", help="where to write the table of faults (tests/faults)")
    parser.addoption("--first-seed", type=int, default=0, help="the seeds of tests/faults begin here")


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("FAULTS_FIRST_SEED", str(config.getoption("first_seed")))


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test leaves behind lies in its own folder."""
    monkeypatch.setenv("SWEEP_HOME", str(tmp_path / "mlruns"))
    monkeypatch.delenv("SWEEP_TRAINER", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def draw_photos(root: Path, *, train: int = 48, val: int = 24, test: int = 12) -> DataConfig:
    """A table of 40 x 48 pictures with two categories: the colour of a square, and whether it lies high or low."""
    rng = np.random.default_rng(0)
    rows = []
    for split, count in (("train", train), ("val", val), ("test", test)):
        for number in range(count):
            colour, place = list(COLOURS)[number % 3], ("high", "low")[number // 3 % 2]
            pixels = rng.integers(90, 160, (48, 40, 3), dtype=np.uint8)
            top = 4 if place == "high" else 26
            pixels[top : top + 18, 10:30] = np.clip(
                np.array(COLOURS[colour]) + rng.integers(-20, 20, (18, 20, 3)), 0, 255
            )
            path = f"{split}{number:03d}.png"
            Image.fromarray(pixels).save(root / path)
            rows.append([path, split, colour, place])
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "split", "colour", "place"], *rows])
    return DataConfig(layout="table", root=str(root), size=32)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """The data set of `draw_photos`, drawn once; not to be written to."""
    return draw_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for decoded images that all tests share."""
    return tmp_path_factory.mktemp("cache")
