"""The report of a study: one HTML page that holds everything it shows."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from sweeper.errors import UserError
from sweeper.figures import runs
from sweeper.figures.process import FigureResult
from sweeper.results import columns, importance, status, winner
from sweeper.results.winner import Winner
from sweeper.space import yaml_io
from sweeper.store import jsonfile, records, studies
from sweeper.store.paths import StudyFolder
from sweeper.store.ranking import Ranking
from sweeper.store.studies import StudyStatus
from sweeper.text import redacted
from trainers.data.summary import Summary
from trainers.epoch import Epoch
from trainers.support import files

TITLES = {
    "curves.svg": "Learning curves; train is dashed",
    "categories.svg": "Accuracy of each category over the epochs",
    "confusion.png": "Answers: rows are true classes, columns what was said",
    "mistakes.png": "The worst mistakes: largest cross entropy first",
    "labels.svg": "Images a class, and what they weigh in the loss",
    "history.svg": "Value of each trial; pruned ones are hollow",
    "slices.svg": "Value against each open value; pruned trials are hollow",
    "crops.png": "What the crop to the box leaves of an image",
}


@dataclass(frozen=True)
class Report:
    """A page that was written, and what could not be drawn for it."""

    path: Path
    figures: tuple[Path, ...]
    troubles: tuple[str, ...]


def write(study: StudyFolder, output: Path | None = None, *, closing: bool = False) -> Report:
    """Draw what the winner, the finals and the study lack, and put it all on one page.

    `closing` says that whoever holds the study is about to let go of it.

    Raises EnvironmentFault where a folder is damaged, UserError where `output` cannot be a file.
    """
    path = output or study.report
    if path.is_dir():
        raise UserError("this is a folder", where=str(path), help="name a file, such as report.html")
    won = _winner(study)
    drawings = {"study": runs.study(study)}
    if won:
        drawings["winner"] = runs.run(study.trial(won.result.number))
    for final in studies.finals(study):
        if final.done and final.folder.test_scores.exists():
            drawings[final.folder.root.name] = runs.run(final.folder)
    troubles = tuple(dict.fromkeys(t for drawing in drawings.values() for t in drawing.troubles))
    standing = studies.status_of(study)
    standing = replace(standing, holder=None) if closing else standing
    files.write_text(path, page(standing, won, drawings, troubles))
    return Report(path, drawings["study"].files, troubles)


def drawn(study: StudyFolder) -> FigureResult:
    """The same, as the answer to a request for figures."""
    made = write(study, closing=True)
    return FigureResult(key=study.name, files=(*made.figures, made.path), troubles=made.troubles)


def _winner(study: StudyFolder) -> Winner | None:
    return winner.winner(study) if records.best(records.results(study)) else None


# --------------------------------------------------------------------------------------------- page
def page(one: StudyStatus, won: Winner | None, drawings: Mapping[str, FigureResult], troubles: Sequence[str]) -> str:
    """The whole document; the drawings of `study`, `winner` and the finals by name."""
    study, results = one.study, records.results(one.study)
    space = study.space.read_text(encoding="utf-8") if study.space.exists() else ""
    finals = [(final, final.folder.root.name) for final in one.finals]
    parts = {
        "study": study.name,
        "question": question(space),
        "standing": status.status(one),
        "troubles": troubles,
        "data": jsonfile.read(study.data, Summary),
        "board": columns.board(Ranking.of(results, study)) if results else None,
        "importance": importance.importance(study, results),
        "tied": any(result.metric == "overall_accuracy" for result in results),
        "trials": _figures("study", drawings["study"], ["labels.svg"] if won else []),
        "won": won,
        "finals": [(final, _figures(name, drawings.get(name), ["labels.svg"])) for final, name in finals],
    }
    return redacted(_template().render(parts | (_won(won, drawings["winner"]) if won else {})))


def _template() -> Template:
    """Every word in it is escaped but for drawings, which do so themselves."""
    pages = Environment(loader=PackageLoader("sweeper.results"), autoescape=True, undefined=StrictUndefined)
    pages.trim_blocks = pages.lstrip_blocks = True
    return pages.get_template("report.html.j2")


def question(text: str) -> str:
    """The first comment of a search space, without what only editors read."""
    lines = text.lstrip().splitlines()
    comment = []
    for line in lines:
        if not line.startswith("#"):
            break
        if "yaml-language-server" not in line:
            comment.append(line.lstrip("#").strip())
    return "\n".join(comment).strip()


def _won(won: Winner, drawing: FigureResult) -> dict[str, object]:
    epochs = records.history(won.study.trial(won.result.number))
    return {
        "best": status.best(won.result),
        "again": ", ".join(f"{value:.4f}" for value in won.confirmed),
        "recipe": yaml_io.recipe_yaml(won.study.name, won.job.recipe).rstrip(),
        "corrected": _corrected(won.epoch) if epochs else [],
        "winner": _figures("winner", drawing),
    }


def _corrected(epoch: Epoch) -> list[list[str]]:
    """What posterior correction gives, where it was tried: metric, without it, with it, tau."""
    plain = epoch.plain or epoch.val
    return [
        [name, f"{plain.value(name):.4f}" if plain else "", f"{one.value:.4f}", f"{one.tau:.2f}"]
        for name, one in epoch.corrected.items()
    ]


# ------------------------------------------------------------------------------------------ figures
@dataclass(frozen=True)
class Figure:
    """A drawing, as a part of the page: as SVG, or as PNG in base64."""

    title: str
    svg: str = ""
    png: str = ""


def _figures(prefix: str, drawing: FigureResult | None, without: Sequence[str] = ()) -> list[Figure]:
    paths = [path for path in drawing.files if path.name not in without] if drawing else []
    return [_figure(path, prefix) for path in paths]


def _figure(path: Path, prefix: str) -> Figure:
    title = TITLES.get(path.name, path.name)
    if path.suffix == ".svg":
        return _drawn(path.read_text(encoding="utf-8"), f"{prefix}-{path.stem}", title)
    return Figure(title, png=base64.b64encode(path.read_bytes()).decode())


def _drawn(text: str, prefix: str, title: str) -> Figure:
    """The drawing as a part of the page: its ids made its own, no namespace, which HTML knows by itself."""
    prefix = re.sub(r"\W", "-", prefix)
    inner = re.sub(r"<[^>]*>", lambda tag: _own(tag[0], prefix), text)
    return Figure(title, svg=inner.strip())


def _own(tag: str, prefix: str) -> str:
    """A tag of a drawing; the words between tags may be names that look like one's inside, and stay."""
    tag = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", tag)
    tag = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', tag)
    tag = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', tag)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", tag)
