"""What `make release` builds: the wheel works away from the checkout, and the sdist builds the same wheel."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = "from setuptools import build_meta; build_meta.build_sdist('dist'), build_meta.build_wheel('dist')"
pytestmark = pytest.mark.slow


def run(*words: str | Path, cwd: Path) -> str:
    """What a program prints, without what this process knows of the checkout."""
    env = {name: text for name, text in os.environ.items() if not name.startswith(("PYTHON", "SWEEP_"))}
    found = subprocess.run(words, cwd=cwd, env=env | {"CI": "1"}, capture_output=True, text=True, timeout=200)
    assert found.returncode == 0, found.stderr
    return found.stdout


def build(folder: Path) -> Path:
    """The wheel that a folder of sources makes."""
    run(sys.executable, "-c", BUILD, cwd=folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """What a build reads, in a folder of its own: a build writes beside its sources."""
    folder = tmp_path_factory.mktemp("sources")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("sweeper", "trainers"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def wheel(sources):
    return build(sources)


def test_the_wheel_alone_draws_a_demo_away_from_the_checkout(wheel, tmp_path):
    """Its dependencies are those of this environment; the program is the wheel's."""
    run(sys.executable, "-m", "venv", tmp_path / "env", cwd=tmp_path)
    (libraries,) = (tmp_path / "env" / "lib").glob("*/site-packages")
    inherited = [place for place in sys.path if place.endswith("site-packages")]
    (libraries / "inherited.pth").write_text("\n".join(inherited))
    python = tmp_path / "env" / "bin" / "python"
    run(
        python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--force-reinstall", wheel, cwd=tmp_path
    )
    assert run(python, "-c", "import sweeper; print(sweeper.__file__)", cwd=tmp_path).startswith(str(tmp_path))
    run(tmp_path / "env" / "bin" / "sweep", "data", "demo", "demo", "--images", "6", "2", "2", cwd=tmp_path)
    assert len(list((tmp_path / "demo").rglob("*.jpg"))) == 10


def test_the_wheel_has_every_file_of_the_packages(wheel):
    packed = set(zipfile.ZipFile(wheel).namelist())
    tracked = run("git", "ls-files", "sweeper", "trainers", cwd=ROOT).split()
    assert {name for name in tracked if name not in packed} == set()


def test_the_sdist_builds_the_same_wheel(wheel, sources, tmp_path):
    (archive,) = (sources / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    again = build(folder)
    assert again.name == wheel.name
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())
