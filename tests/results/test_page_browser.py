"""The report in a browser: wide, on a telephone, in the dark; what hovering and clicking do."""

import re

import pytest

from sweeper.results import page as report_page
from sweeper.store import records
from sweeper.store.paths import StudyFolder
from tests.support.browser import CHROMIUM, elsewhere, opened
from tests.support.studies import close_all, play, write
from tests.support.studies import opened as begun

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here"),
]
TRIALS = 60


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    """The report of a study with branches, a log scale and pruned trials."""
    folder = tmp_path_factory.mktemp("report")
    search = "{sampler: random, pruner: {name: median, startup_trials: 9, warmup_epochs: 1, min_trials: 9}}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEP_TRAINER", "fake")
        study = begun(write(folder, budget=f"{{trials: {TRIALS}}}", search=search, epochs=3))
        play(study)
        close_all()
    assert {one.state for one in records.results(study.folder)} == {"COMPLETE", "PRUNED"}
    return report_page.write(study.folder).path.as_uri()


def background(page, place: str) -> int:
    """How bright it is, from 0 to 255."""
    colour = page.evaluate(f"getComputedStyle(document.querySelector('{place}')).backgroundColor")
    return sum(map(int, re.findall(r"\d+", colour)[:3])) // 3


def ink(page, place: str) -> int:
    """How bright the words of a chart are."""
    colour = page.evaluate(f"getComputedStyle(document.querySelector('{place}')).fill")
    return sum(map(int, re.findall(r"\d+", colour)[:3])) // 3


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "light"), (1280, "dark"), (390, "dark")])
def test_nothing_is_asked_for_nothing_complains_and_nothing_is_wider_than_the_page(address, width, scheme):
    with opened(address, width=width, scheme=scheme) as (page, seen):
        assert elsewhere(seen, address) == []
        assert seen.complaints == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("[data-chart] svg.main-svg").count() >= 2 * len(page.locator("[data-chart]").all())
        dark = scheme == "dark"
        assert (background(page, "body") < 60) == dark
        assert (ink(page, "#chart-history .xtick text") > 150) == dark
        for chart in page.locator("[data-chart]").all():
            assert chart.evaluate("one => one.getBoundingClientRect().width") > 200


def test_charts_follow_when_the_reader_turns_the_light_off(address):
    with opened(address) as (page, seen):
        before = ink(page, "#chart-history .xtick text")
        page.emulate_media(color_scheme="dark")
        page.wait_for_function("dark.matches")
        assert ink(page, "#chart-history .xtick text") > before + 100
        assert seen.complaints == []


def test_hovering_names_a_trial_and_a_click_finds_it_in_every_chart_and_in_the_table(address):
    with opened(address) as (page, seen):
        number = page.evaluate("charts[0].data[0].customdata[2]")
        point = page.locator("#chart-history .scatterlayer .trace").first.locator(".points path").nth(2)
        point.scroll_into_view_if_needed()
        box = point.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        label = page.locator("#chart-history .hoverlayer .hovertext")
        label.wait_for()
        assert f"trial {number}," in label.text_content()
        page.mouse.down()
        page.mouse.up()
        row = page.locator("tr.chosen")
        row.wait_for()
        assert row.get_attribute("data-trial") == str(number)
        assert page.locator("#chosen code").inner_text() == f"sweep show question/{number}"
        marked = page.evaluate("charts.filter((one) => one.overlay.x.length).map((one) => one.div.id)")
        assert {"chart-history", "chart-parallel"} <= set(marked)
        assert seen.complaints == []


def test_a_click_on_a_row_of_the_table_finds_the_trial_in_the_charts(address):
    with opened(address) as (page, _):
        row = page.locator("tr[data-trial]").nth(4)
        number = int(row.get_attribute("data-trial"))
        row.click()
        assert page.evaluate("charts[0].overlay.x") == [number]
        assert f"trial {number}," in page.locator("#chosen span").inner_text()


@pytest.mark.parametrize("width", [1280, 390])
def test_a_comparison_fits_asks_for_nothing_and_has_its_lines(tmp_path_factory, width):
    studies = []
    for name in ("one", "two"):
        folder = tmp_path_factory.mktemp(name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SWEEP_TRAINER", "fake")
            study = begun(write(folder, budget="{trials: 6}", search="{sampler: random, pruner: none}", epochs=2))
            play(study)
            close_all()
        studies.append(StudyFolder(study.folder.root.rename(folder / name)))
    made = report_page.compare(studies, tmp_path_factory.mktemp("page") / "comparison.html")
    with opened(made.path.as_uri(), width=width) as (page, seen):
        assert elsewhere(seen, made.path.as_uri()) == []
        assert seen.complaints == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("#chart-best-so-far .legendtext").all_text_contents() == ["one", "two"]
        assert page.evaluate("charts[0].data.map((one) => one.name)") == ["one", "two"]
