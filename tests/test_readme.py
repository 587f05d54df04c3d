"""The README is true: its commands run, in its order, and its search space is accepted."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sweeper.space import yaml_io
from sweeper.space.space import Space
from tests.support import pages

ROOT = Path(__file__).parents[1]
README = pages.read(ROOT / "README.md")
REFERENCE = pages.read(ROOT / "docs" / "reference" / "json.md")
LINES, SCREEN = 150, 40  # of the whole, and of what is seen without scrolling
JSON = re.findall(r"^\| `(sweep (?:[^`]* )?--json)` \| (.*) \|$", REFERENCE, re.MULTILINE)
SLOW = {"sweep doctor --json"}  # asks the model hub
COMMANDS = pages.commands(README, "sweep")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as `make demo` leaves it, in which the README's commands run one after another."""
    place = tmp_path_factory.mktemp("user")
    (place / "search_spaces").symlink_to(ROOT / "search_spaces")
    run("sweep data demo data/FashionDataset", place)
    return place


@pytest.fixture(scope="module")
def ended(folder):
    """How each command of the README ended, in its order: each works on what those before it left."""
    return [called(command, folder) for command in COMMANDS]


def run(command: str, place: Path) -> str:
    """What a command prints."""
    found = called(command, place)
    assert found.returncode == 0, found.stderr
    return found.stdout


def called(command: str, place: Path) -> subprocess.CompletedProcess[str]:
    """How a command ended; training itself is the fake one."""
    own = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(place)}
    fake = {"SWEEP_TRAINER": "fake", "CI": "1", "OMP_WAIT_POLICY": os.environ["OMP_WAIT_POLICY"]}
    words = shlex.split(command)
    return subprocess.run(words, cwd=place, env=own | fake, capture_output=True, text=True, timeout=200)


@pytest.mark.process
@pytest.mark.parametrize("number", range(len(COMMANDS)), ids=COMMANDS)
def test_a_command_of_the_readme_runs(number, ended):
    assert ended[number].returncode == 0, ended[number].stderr


@pytest.mark.process
@pytest.mark.parametrize(("command", "keys"), [one for one in JSON if one[0] not in SLOW])
@pytest.mark.usefixtures("ended")
def test_a_json_document_has_the_keys_of_the_reference(command, keys, folder):
    """After the commands of the README."""
    named = re.sub(r"\(.*?\)", "", keys)
    assert list(json.loads(run(command, folder))) == re.findall(r"`(\w+)`", named)


@pytest.mark.parametrize("target", [line.split()[1] for line in pages.commands(README, "make")])
def test_a_make_target_of_the_readme_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("text", pages.blocks(README, "yaml"))
def test_a_search_space_of_the_readme_is_accepted(text, tmp_path):
    (tmp_path / "space.yaml").write_text(text)
    assert Space(yaml_io.read(tmp_path / "space.yaml"), ["class"]).names


def test_the_readme_is_short():
    assert len(README.splitlines()) <= LINES


def test_the_first_screen_says_what_was_never_tried():
    assert "has not been run on a GPU yet" in "\n".join(README.splitlines()[:SCREEN])
