"""Names that are HTML, Markdown or formulas: shown as they are, and doing nothing wherever a person opens them."""

import csv
import itertools
import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from tests.support.browser import CHROMIUM, FLAGS
from tests.support.processes import Lab

pytestmark = pytest.mark.process


SCRIPT = "<script>alert(1)</script>"
PICTURE = '"><img src=x onerror=alert(2)>'
CLOSING = "</style></title></svg>--><script>alert(3)</script>"
FENCE = "```` ![x](http://127.0.0.1:9/x) <b onclick=alert(4)>"
INSIDE = 'x xmlns="</text><script>alert(5)</script>'
FORMULAS = ("=cmd|'/C calc'!A0", "+1", "-1", "@SUM(1)", "1,2", 'a "b"')
CATEGORIES = {SCRIPT: (PICTURE, CLOSING), f"a|b {FENCE}": (INSIDE, FENCE, *FORMULAS)}
FILE = "<img src=x onerror=alert(6)>"
SPACE = f"""\
# {SCRIPT} {PICTURE} {CLOSING}
study: question
data: {{layout: table, root: '{FILE}'}}
budget: {{trials: 4}}
search: {{sampler: random, pruner: none, seed: 1}}
train:
  backbone: {{choice: [test_resnet, '{SCRIPT}', broken.error]}}
  pretrained: false
  image_size: 32
  loss: {{name: focal, category_weights: {{per_category: {{uniform: [0.5, 1.5]}}}}}}
  epochs: 2
"""


def draw(root: Path) -> None:
    """Sixteen images a class of the larger category, in three splits; their names are HTML or formulas, too."""
    root.mkdir(parents=True)
    labels = itertools.product(*CATEGORIES.values())
    with (root / "labels.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["path", "split", *CATEGORIES])
        for number, (classes, split) in enumerate(itertools.product(labels, ("train", "val", "test"))):
            name = f"{'=+-@'[number % 4]}{number} {FILE}.png"
            Image.new("RGB", (40, 40), (number * 5, 99, 99)).save(root / name)
            out.writerow([name, split, *classes])


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Lab:
    """A study with a failed trial, whose error is HTML as well, a final and a report."""
    root = tmp_path_factory.mktemp("hostile")
    draw(root / FILE)
    lab = Lab(root, {"SWEEP_FAKE_SECONDS": "0"})
    lab.home.mkdir()
    shutil.copy(database, lab.home)
    space = f"`{FILE}.yaml"
    (root / space).write_text(SPACE)
    ended = lab.sweep("run", space, "--devices", "cpu", "--then-best")
    assert ended.code == 0, ended.err
    for folder in lab.trials:
        path = folder / "result.json"
        result = json.loads(path.read_text())
        if result["state"] == "FAILED":
            path.write_text(json.dumps(result | {"error": f"{SCRIPT} {PICTURE}"}))
    assert any(one["state"] == "FAILED" for one in lab.results().values())
    for words in (["score", "question", "0.5", "--note", SCRIPT], ["report"]):
        ended = lab.sweep(*words)
        assert ended.code == 0, ended.err
    return lab


OURS = re.compile(
    r'<script(?: type="application/json"[^>]*)?>(?:/\*\*\n\* plotly|\{|\n"use strict").*?</script>', re.DOTALL
)
"""The scripts of the report itself."""


class Tags(HTMLParser):
    """The tags of a page, with what makes them act."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.acting: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.acting += [name for name, _ in attrs if name.startswith("on")]
        named = [str(value) for name, value in attrs if name in ("src", "href")]
        self.acting += [one for one in named if not one.startswith(("data:", "#"))]


def rendered(text: str) -> str:
    """Markdown as a reader that lets HTML through shows it."""
    from markdown_it import MarkdownIt

    return str(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))


def notes(lab: Lab) -> list[str]:
    with closing(sqlite3.connect(lab.home / "mlflow.db")) as link:
        return [one for (one,) in link.execute("SELECT value FROM tags WHERE key = 'mlflow.note.content'")]


@pytest.mark.fault("X-html")
def test_names_that_are_html_make_no_tag_in_report_and_figures(swept, case):
    page = OURS.sub("", (swept.study / "report.html").read_text())
    for shown in ("&lt;script&gt;alert(1)&lt;/script&gt;", "&lt;img src=x onerror=alert(6)&gt;"):
        assert shown in page
    drawings = [path.read_text() for path in swept.root.rglob("*.svg") if path.is_file()]
    assert len(drawings) >= 4
    for text in (page, *drawings):
        found = Tags(text)
        assert not found.names & {"script", "b", "iframe", "object"}
        assert not found.acting


@pytest.mark.fault("X-html")
def test_names_that_are_html_are_words_in_the_card_and_in_mlflows_note(swept, case):
    (card,) = swept.study.glob("finals/*/card.md")
    (note,) = notes(swept)
    assert FILE in note
    for text in (card.read_text(), note):
        found = Tags(rendered(text))
        assert not found.names & {"script", "img", "b", "style"}
        assert not found.acting
    cells = [line for line in card.read_text().splitlines() if line.startswith("| a")]
    assert len(cells) > len(FORMULAS)
    assert rendered(card.read_text()).count("<td>a|b ````") == 2 + len(FORMULAS)
    with closing(sqlite3.connect(swept.home / "mlflow.db")) as link:
        views = link.execute("SELECT value FROM experiment_tags WHERE key LIKE 'mlflow.sharedViewState.%'").fetchall()
    assert views
    assert not [one for (one,) in views if "<" in one]


@pytest.mark.fault("X-html")
@pytest.mark.many
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_in_a_browser_no_name_runs_and_nothing_is_fetched(swept, case):
    from playwright.sync_api import sync_playwright

    pages = [swept.study / "report.html", *swept.root.rglob("*.svg")]
    happened: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.on("dialog", lambda one: (happened.append(one.message), one.dismiss()))
        page.on("request", lambda one: happened.append(one.url))
        for path in pages:
            page.goto(path.as_uri())
            page.wait_for_load_state("networkidle")
            assert page.evaluate("document.querySelectorAll('[onerror], [onclick]').length") == 0
            scripts = page.evaluate(
                "[...document.querySelectorAll('script:not([type])')].map((one) => one.outerHTML)"
            )
            assert all(OURS.fullmatch(one) for one in scripts)
        browser.close()
    wanted = {path.as_uri() for path in pages}
    assert {one for one in happened if not one.startswith("data:")} == wanted


def rows(path: Path) -> Iterator[list[str]]:
    with path.open(newline="") as file:
        yield from csv.reader(file)


@pytest.mark.fault("X-html")
def test_tables_for_programs_hold_the_true_names_formulas_or_not(swept, case):
    (path,) = swept.study.glob("finals/*/predictions.csv")
    head, *answers = rows(path)
    listed = [one for one in rows(swept.root / FILE / "labels.csv") if one[1] == "test"]
    assert head == ["path", *CATEGORIES]
    assert [one[0] for one in answers] == [one[0] for one in listed]
    for column, classes in enumerate(CATEGORIES.values(), 1):
        assert {one[column] for one in answers} <= set(classes)
    assert (
        "a spreadsheet would read some names as formulas"
        in swept.sweep("best", "--export", "submission", "--no-mlflow").out
    )
    names, *trials = rows(swept.study / "trials.csv")
    assert {f"loss.category_weights.{name}" for name in CATEGORIES} <= set(names)
    assert len(trials) == 4
    assert {len(one) for one in trials} == {len(names)}
