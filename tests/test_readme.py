"""The README is true: its commands run, its map is complete, its YAML is accepted."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from sweeper.space import yaml_io
from sweeper.space.space import Space

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


COMMANDS = [line.split(" #")[0].strip() for block in blocks("sh") for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as a new user has it, in which the README's commands are run one after another."""
    place = tmp_path_factory.mktemp("user")
    shutil.copytree(ROOT / "search_spaces", place / "search_spaces")
    return place


def environment(place: Path) -> dict[str, str]:
    binaries = str(Path(sys.executable).parent)
    return {"PATH": f"{binaries}:/usr/bin:/bin", "HOME": str(place), "SWEEP_TRAINER": "fake", "CI": "1"}


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("sweep ")])
def test_a_command_of_the_readme_runs(command, folder):
    """In the order of the README, each on what those before it left; training itself is the fake one."""
    ended = subprocess.run(
        shlex.split(command), cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=200
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("target", [line.split()[1] for line in COMMANDS if line.startswith("make ")])
def test_a_make_target_of_the_readme_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_a_search_space_of_the_readme_is_accepted(text, tmp_path):
    (tmp_path / "space.yaml").write_text(text)
    read = yaml_io.read(tmp_path / "space.yaml")
    assert Space(read, ["sleeve", "material"]).names
    assert YAML(typ="safe").load(text)["study"] == read.study


def test_the_map_names_every_module():
    (tree,) = [block for block in blocks("text") if "trainers/  " in block]
    named = set(re.findall(r"\b(\w+)\.py\b", tree))
    modules = {path.stem for folder in ("sweeper", "trainers") for path in (ROOT / folder).rglob("*.py")}
    assert named - {"test_architecture"} == modules - {"__init__"}


def test_every_picture_is_there():
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / picture).is_file(), picture
