"""The documents are true: links lead somewhere, commands parse, search spaces are accepted, the map fits."""

import ast
import inspect
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import typer
from PIL import Image

from sweeper import cli
from sweeper.cli import groups
from sweeper.space import yaml_io
from sweeper.space.space import Space
from sweeper.store import paths
from tests.support import pages
from trainers import signatures

ROOT = Path(__file__).parents[1]
GENERATED = [f"docs/{name}.md" for name in ("reference/keys", "explanation/faults")]
DOCS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
WRITTEN = [
    "README.md",
    "CONTRIBUTING.md",
    "STYLE.md",
    "SECURITY.md",
    *(name for name in DOCS if name not in GENERATED),
]
PAGES = [*WRITTEN, *GENERATED, "CHANGELOG.md", "benchmarks/RESULTS.md"]
OWN = ["docs/how-to/own-loss.md", "docs/how-to/own-backbone.md", "docs/reference/extensions.md"]
"""Each search space of these pages belongs to the Python above it."""
TEXTS = {name: pages.read(ROOT / name) for name in PAGES}
SPACES = [name for name in WRITTEN if name not in OWN]
CATEGORIES = ["garment", "wearer"]  # of the data sets in the examples
PLACES = re.compile(r"(?:sweeper|trainers|tests|benchmarks|docs|search_spaces)/[\w./-]+|test_\w+\.py")
AVOIDED = (
    "anew",
    "begun",
    "whoever",
    "whosever",
    "taken up",
    "gone on",
    "as far as",
    "goes on with",
    "wherever",
    "parted",
    "so many",
    "want of",
    "of its own making",
)
"""Habits of speech that readers stumble over, see STYLE.md."""


# ----------------------------------------------------------------------------------------- links and words
@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name):
    for link in pages.links(TEXTS[name]):
        path, _, heading = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        assert not heading or heading in pages.anchors(pages.read(target)), link


@pytest.mark.parametrize("name", sorted(set(WRITTEN) - {"STYLE.md"}))
def test_a_page_is_written_in_plain_words(name):
    found = [word for word in AVOIDED if re.search(rf"\b{word}\b", pages.prose(TEXTS[name]), re.IGNORECASE)]
    assert not found


def test_every_page_and_picture_of_the_docs_is_linked_somewhere():
    links = {(name, link.partition("#")[0]) for name in PAGES for link in pages.links(TEXTS[name])}
    linked = {(ROOT / name).parent.joinpath(link).resolve() for name, link in links if link}
    files = [path for path in (ROOT / "docs").rglob("*") if path.suffix in (".md", ".svg", ".png")]
    assert [path for path in files if path.resolve() not in linked] == [ROOT / "docs" / "index.md"]


def test_every_page_has_a_place_in_the_navigation_of_the_site():
    named = re.findall(r"^ *- (?:\w+: )?(\S+\.md)$", pages.read(ROOT / "mkdocs.yml"), re.MULTILINE)
    assert sorted(f"docs/{name}" for name in named if not name.startswith("project/")) == DOCS


# ----------------------------------------------------------------------------------------- commands and keys
@pytest.mark.parametrize("line", sorted({line for name in WRITTEN for line in pages.mentioned(TEXTS[name], "sweep")}))
def test_a_command_of_the_docs_parses(line):
    words = [word for word in shlex.split(line.split(" > ")[0])[1:] if word != "--help"]
    command: Any = typer.main.get_command(cli.app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands") or all(word.startswith("-") for word in words), f"no command {words[0]}"
    if words:
        command.make_context("sweep", words)


@pytest.mark.parametrize(
    "target", sorted({line for name in WRITTEN for line in pages.mentioned(TEXTS[name], "make")})
)
def test_a_make_target_of_the_docs_exists(target):
    assert re.search(rf"^{target.split()[1]}:", pages.read(ROOT / "Makefile"), re.MULTILINE)


@pytest.mark.parametrize(
    "text", [text for name in SPACES for text in pages.blocks(TEXTS[name], "yaml") if "train:" in text]
)
def test_a_search_space_of_the_docs_is_accepted(text, tmp_path):
    (tmp_path / "space.yaml").write_text(text)
    Space(yaml_io.read(tmp_path / "space.yaml"), CATEGORIES)


@pytest.mark.parametrize(
    "text", [text for name in SPACES for text in pages.blocks(TEXTS[name], "yaml") if "train:" not in text]
)
def test_a_piece_of_a_search_space_fits_into_a_whole_one(text, tmp_path):
    whole = f"data: {{layout: folder, root: photos}}\ntrain: {{backbone: resnet18}}\n{text}"
    (tmp_path / "space.yaml").write_text(whole)
    Space(yaml_io.read(tmp_path / "space.yaml"), CATEGORIES)


def coded() -> Iterator[tuple[str, str]]:
    """The Python of those pages, each with the search space, or piece of one, that follows it, if any."""
    for name in OWN:
        pattern = r"^```python\n(.*?)^```(?:(?:(?!^```).)*^```yaml\n(.*?)^```)?"
        yield from re.findall(pattern, TEXTS[name], re.MULTILINE | re.DOTALL)


@pytest.mark.process  # torch starts one when it is loaded
@pytest.mark.parametrize(("code", "text"), list(coded()))
def test_python_of_your_own_is_loaded_and_its_search_space_accepted(code, text, tmp_path):
    (tmp_path / "my_code.py").write_text(code)
    needed = {
        "extensions": "[my_code.py]",
        "data": "{layout: folder, root: photos}",
        "train": "{backbone: resnet18}",
        "budget": "{trials: 4}",
    }
    missing = [f"{key}: {value}\n" for key, value in needed.items() if f"{key}:" not in text]
    (tmp_path / "space.yaml").write_text("".join(missing) + text)
    Space(yaml_io.read(tmp_path / "space.yaml"), CATEGORIES)


def test_every_kind_of_python_of_your_own_has_an_example():
    written = "".join(code for code, _ in coded())
    assert {kind for kind in signatures.KINDS if f"\n{kind} = {{" not in written} == set()


def test_the_page_of_commands_has_the_headings_and_the_order_of_the_help():
    page = TEXTS["docs/reference/commands.md"]
    found: dict[str, list[str]] = {}
    for title, body in re.findall(r"^## (.+?)$(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL):
        commands = re.findall(r"^### sweep (\w+)", body, re.MULTILINE)
        found[title] = list(dict.fromkeys(commands))
    assert found == {title: list(names) for title, names in groups.SECTIONS.items()}


def test_the_options_of_the_commands_are_those_of_the_program():
    """`make schema` writes them."""
    script = runpy.run_path(str(ROOT / "docs" / "write_commands.py"))
    page = pages.read(script["PATH"])
    assert script["document"](page) == page


def test_the_reference_names_files_that_are_written():
    section = TEXTS["docs/reference/files.md"].split("## The study's folder")[1]
    first = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    named = {name.split("/")[0] for cell in first for name in re.findall(r"`([^`]+)`", cell)}
    assert {name for name in named if f'"{name}"' not in inspect.getsource(paths)} == set()


@pytest.mark.parametrize("package", ["sweeper", "trainers"])
def test_a_package_is_installed_with_its_types(package):
    written = tomllib.loads(pages.read(ROOT / "pyproject.toml"))
    assert (ROOT / package / "py.typed").is_file()
    assert "py.typed" in written["tool"]["setuptools"]["package-data"][package]


# ----------------------------------------------------------------------------------------- shell blocks
FILES = {
    "docs/tutorial.md": {"photos.yaml": "yaml"},
    "docs/how-to/own-loss.md": {"my_code.py": "python", "my_space.yaml": "yaml"},
}
"""What a page asks the reader to save: the first block of that language."""
SCRIPTS = {name: [block for block, reason in pages.scripts(TEXTS[name]) if not reason] for name in DOCS}


def test_an_unmarked_shell_block_of_the_readme_has_commands_that_its_test_runs():
    unmarked = [block for block, reason in pages.scripts(TEXTS["README.md"]) if not reason]
    assert {line.split()[0] for block in unmarked for line in block.splitlines()} == {"sweep"}


@pytest.mark.parametrize("name", [name for name in DOCS if "<!-- not run:" in TEXTS[name]])
def test_a_shell_block_that_is_not_run_names_tests_that_exist(name):
    reasons = [reason for _, reason in pages.scripts(TEXTS[name])]
    assert [place for reason in reasons for place in PLACES.findall(reason) if not (ROOT / place).exists()] == []


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """What pages take for granted: search spaces, a demo, photographs in folders and a table, a finished study."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "search_spaces").symlink_to(ROOT / "search_spaces")
    for number in range(48):
        kind = ("dress", "hat", "shirt")[number % 3]
        path = folder / "photos" / kind / f"{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((40, 50), 20 + number).convert("RGB").save(path)
    rows = [f"{path.parent.name}/{path.name},{path.parent.name}\n" for path in sorted(folder.rglob("*.jpg"))]
    (folder / "photos" / "labels.csv").write_text("path,garment\n" + "".join(rows))
    execute("sweep data demo data/FashionDataset --images 60 20 10", folder)
    execute("sweep run search_spaces/quickstart.yaml; sweep best --export submission", folder)
    return folder


def execute(script: str, folder: Path) -> None:
    """Run a shell block as the page has it; training itself is the fake one."""
    own = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(folder), "SWEEP_TRAINER": "fake"}
    words = ["bash", "-e", "-c", script]
    found = subprocess.run(words, cwd=folder, env=own | {"CI": "1"}, capture_output=True, text=True, timeout=240)
    assert found.returncode == 0, f"{script}\n{found.stdout}\n{found.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, blocks in SCRIPTS.items() if blocks])
def test_the_shell_blocks_of_a_page_run(name, project, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(project, folder, symlinks=True)
    for path, kind in FILES.get(name, {}).items():
        (folder / path).write_text(pages.blocks(TEXTS[name], kind)[0])
    for block in SCRIPTS[name]:
        execute(block, folder)


# ----------------------------------------------------------------------------------------- the site
@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site as `make docs` builds it."""
    program = shutil.which("mkdocs", path=f"{ROOT / '.venv-docs/bin'}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("no MkDocs here: make docs installs it")
    folder = tmp_path_factory.mktemp("site")
    words = [program, "build", "--strict", "--quiet", "--site-dir", folder]
    found = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert found.returncode == 0, found.stderr
    return folder


class Targets(HTMLParser):
    """What a page of the site links to or loads, and the places in it that a link may name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.linked: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.linked.append(given["href"])
        elif tag in ("script", "img", "iframe") and "src" in given:
            self.loaded.append(given["src"])
        elif tag == "link" and given.get("rel") != "canonical" and "href" in given:
            self.loaded.append(given["href"])


@pytest.mark.slow
def test_no_link_of_the_site_is_dead_and_nothing_comes_from_another_host(site):
    found = {path: Targets(pages.read(path)) for path in site.rglob("*.html")}
    dead = []
    for path, targets in found.items():
        dead += [f"{path.name} loads {url}" for url in targets.loaded if "//" in url]
        for url in [*targets.linked, *targets.loaded]:
            if re.match(r"[a-z]+:|//", url) or path.name == "404.html":
                continue
            place, _, name = unquote(url).partition("#")
            target = (path.parent / place).resolve() if place else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or (name and target in found and name not in found[target].ids):
                dead.append(f"{path.relative_to(site)}: {url}")
    assert dead == []
    assert len(found) > len(DOCS)


# ----------------------------------------------------------------------------------------- the map
def charted() -> dict[str, str]:
    """The packages of docs/explanation/architecture.md with their sentences."""
    (block,) = [
        one for one in pages.blocks(TEXTS["docs/explanation/architecture.md"], "text") if one.startswith("sweeper/")
    ]
    found: dict[str, str] = {}
    top = ""
    for inner, name, sentence in re.findall(r"^( *)(\w[\w/]*)/ +(.+)$", block, re.MULTILINE):
        top = top if inner else name
        found[f"{top}/{name}" if inner else name] = sentence
    return found


def packages() -> Iterator[tuple[str, str]]:
    """The packages that there are, and the first sentence of each."""
    for path in sorted(ROOT.glob("sweeper/**/__init__.py")) + sorted(ROOT.glob("trainers/**/__init__.py")):
        words = " ".join((ast.get_docstring(ast.parse(pages.read(path))) or "").split())
        yield path.parent.relative_to(ROOT).as_posix(), re.split(r"(?<=\.)\s", words)[0]


@pytest.mark.parametrize(("package", "sentence"), list(packages()))
def test_the_map_says_of_a_package_what_it_says_of_itself(package, sentence):
    assert charted().get(package) == sentence


def test_the_map_names_no_package_that_there_is_not():
    assert set(charted()) == {package for package, _ in packages()}


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/explanation/architecture.md"])
def test_every_file_that_a_contributor_is_sent_to_exists(name):
    tests = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    named = [word for span in re.findall(r"`([^`\n]+)`", pages.prose(TEXTS[name])) for word in PLACES.findall(span)]
    assert {place for place in named if place not in tests and not (ROOT / place).exists()} == set()
