"""The report of a study, or of several: one self-contained HTML page."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from sweeper import text
from sweeper.errors import UserError
from sweeper.figures import charts, embedded, runs
from sweeper.figures.parallel import Axis
from sweeper.figures.process import FigureResult
from sweeper.figures.study_plots import Dot
from sweeper.results import answer, columns, comparison, importance, status, winner
from sweeper.results.winner import Winner
from sweeper.space import yaml_io
from sweeper.space.compare import opened
from sweeper.store import jsonfile, paths, records, studies, study_file
from sweeper.store.importance import Importance
from sweeper.store.paths import StudyFolder
from sweeper.store.ranking import Ranking, parameter_names
from sweeper.store.studies import StudyStatus
from sweeper.text import redacted
from sweeper.trial import TrialResult
from trainers.data.summary import Summary
from trainers.epoch import Epoch
from trainers.support import files

OF_DATA = ("labels.svg", "crops.png")


@dataclass(frozen=True)
class Report:
    """A page that was written, its figures, and the reasons why others could not be drawn."""

    path: Path
    figures: tuple[Path, ...]
    troubles: tuple[str, ...]


def write(study: StudyFolder, output: Path | None = None, *, closing: bool = False) -> Report:
    """Draw the missing figures of the winner, the final models and the study, and put all on one page.

    With `closing`, the process that holds the study is about to release it, so it is not shown as running.

    Raises EnvironmentFault if a folder is damaged, and UserError if `output` is a folder.
    """
    path = writable(output or study.report)
    standing = studies.status_of(study)
    standing = replace(standing, holder=None) if closing else standing
    won = winner.winner(study) if standing.best else None
    importance.importance(study, standing.results)  # updates importance.json, so that the figure covers these trials
    drawings = {"study": runs.study(study)}
    if won:
        drawings["winner"] = runs.run(study.trial(won.result.number))
    for final in standing.finals:
        if final.done and final.folder.test_scores.exists():
            drawings[final.folder.root.name] = runs.run(final.folder)
    troubles = tuple(dict.fromkeys(t for drawing in drawings.values() for t in drawing.troubles))
    files.write_text(path, page(standing, won, drawings, troubles))
    return Report(path, drawings["study"].files, troubles)


def writable(path: Path) -> Path:
    """Return the path of a page. Raises UserError if it is a folder."""
    if path.is_dir():
        raise UserError("this is a folder", where=str(path), help="name a file, such as report.html")
    return path


def drawn(study: StudyFolder) -> FigureResult:
    """Write the report as the answer to a request for figures."""
    made = write(study, closing=True)
    return FigureResult(key=study.name, files=(*made.figures, made.path), troubles=made.troubles)


def compare(found: Sequence[StudyFolder], output: Path | None = None) -> Report:
    """Put several studies on one page. Raises UserError if their metrics differ."""
    path = writable(output or paths.comparison())
    made = comparison.comparison(*found)
    standings = [studies.status_of(study) for study in found]
    others = [(side.study.name, made.differences(side)) for side in made.sides[1:]]
    *_, (_, headers, winners) = made.tables()
    parts = {
        "names": [study.name for study in found],
        "answer": made.caution or comparison.headline(standings),
        "overview": [[one.study.name, *_overview(one)] for one in standings],
        "reports": [(s.name, os.path.relpath(s.report, path.parent)) for s in found if s.report.exists()],
        "differences": others,
        "charts": [charts.best_so_far(made.best_so_far, made.metric)],
        "headers": headers,
        "winners": winners,
        "ledgers": [[one.study.name, *row] for one in standings for row in columns.ledger(one).rows],
    }
    files.write_text(path, rendered("comparison.html.j2", parts, {}))
    return Report(path, (), ())


def _overview(one: StudyStatus) -> list[str]:
    """Return best value, its trial, number of trials, time, important parameters, and board scores."""
    scores = [score["value"] for final in one.finals for score in final.scores]
    top = one.best
    best = [text.format_value(top.value, top.standard_error), str(top.number)] if top else ["-", "-"]
    took = text.format_duration(records.elapsed_seconds(one.study))
    mattered = importance.importance(one.study, one.results)
    shares = ", ".join(map(str, mattered.named)) if mattered and mattered.shares else "-"
    return [*best, str(len(one.results)), took, shares, ", ".join(f"{score:g}" for score in scores) or "-"]


# --------------------------------------------------------------------------------------------- page
def page(one: StudyStatus, won: Winner | None, drawings: Mapping[str, FigureResult], troubles: Sequence[str]) -> str:
    """Return the whole document; `drawings` are by name: `study`, `winner`, and the folders of the final models."""
    study, results = one.study, one.results
    space = study.space.read_text(encoding="utf-8") if study.space.exists() else ""
    finals = [(final, final.folder.root.name) for final in one.finals]
    ranking = Ranking.of(results, study)
    mattered = importance.importance(study, results)
    of_study = drawings["study"].files
    parts = {
        "study": study.name,
        "answer": answer.sentences(one, won, ranking, mattered),
        "question": question(space),
        "standing": status.status(one),
        "troubles": troubles,
        "data": jsonfile.read(study.data, Summary),
        "board": columns.board(ranking, mattered) if results else None,
        "numbers": [row["trial"] for row in ranking.rows],
        "importance": mattered,
        "tied": any(row["tied"] is not None for row in ranking.rows),
        "charts": _charts(one, mattered),
        "drawn": min(charts.MAX_TRIALS, len(results)),
        "of_data": embedded.pictures("study", [path for path in of_study if path.name in OF_DATA]),
        "failures": [[str(r.number), r.failure or "", r.error or ""] for r in results if r.state == "FAILED"],
        "repeat": list(_repeat(one, won)),
        "won": won,
        "finals": [(final, _pictures(name, drawings.get(name))) for final, name in finals],
        "ledger": columns.ledger(one),
        "same": list(_same_submissions(one)),
    }
    return rendered("report.html.j2", parts | (_won(won, drawings["winner"]) if won else {}), _hovers(results))


def rendered(name: str, parts: Mapping[str, Any], hovers: Mapping[int, str]) -> str:
    """Return a rendered template, with the scripts of its charts."""
    pages = _pages()
    known: Mapping[str, Any] = {"charts": [], "hovers": _script(hovers), "themes": charts.themes()}
    body = redacted(pages.get_template(name).render({**known, **parts}))
    return body.replace("<!-- plotly -->", f"<script>{charts.library()}</script>" if parts.get("charts") else "")


def _pages() -> Environment:
    """Return the template environment. It escapes all text except drawings and charts, which escape themselves."""
    pages = Environment(loader=PackageLoader("sweeper.results"), autoescape=True, undefined=StrictUndefined)
    pages.trim_blocks = pages.lstrip_blocks = True
    return pages


def _script(value: Any) -> str:
    """Return JSON that is safe inside a script element."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def question(text: str) -> str:
    """Return the first comment of a search space, without lines meant for editors."""
    lines = text.lstrip().splitlines()
    comment = []
    for line in lines:
        if not line.startswith("#"):
            break
        if "yaml-language-server" not in line:
            comment.append(line.lstrip("#").strip())
    return "\n".join(comment).strip()


def _pictures(prefix: str, drawing: FigureResult | None) -> list[embedded.Picture]:
    paths = [path for path in drawing.files if path.name != "labels.svg"] if drawing else []
    return embedded.pictures(prefix, paths)


def _won(won: Winner, drawing: FigureResult) -> dict[str, object]:
    return {
        "best": status.best(won.result),
        "again": ", ".join(f"{value:.4f}" for value in won.confirmed),
        "recipe": yaml_io.recipe_yaml(won.study.name, won.job.recipe).rstrip(),
        "corrected": _corrected(won.epoch) if won.epoch else [],
        "winner": _pictures("winner", drawing),
    }


def _corrected(epoch: Epoch) -> list[list[str]]:
    """Return rows of metric, uncorrected and corrected value, and tau, if posterior correction was tried."""
    plain = epoch.plain or epoch.val
    return [
        [name, f"{plain.value(name):.4f}" if plain else "", f"{one.value:.4f}", f"{one.tau:.2f}"]
        for name, one in epoch.corrected.items()
    ]


# ------------------------------------------------------------------------------------------- repeating
def _same_submissions(one: StudyStatus) -> Iterator[str]:
    for final in one.finals:
        for same in studies.same_submissions(final.folder):
            yield f"The submission of final model {final.number} is byte for byte identical to that of {same.name}."


def _repeat(one: StudyStatus, won: Winner | None) -> Iterator[tuple[str, str]]:
    """Yield commands, and what each does."""
    name = one.study.name
    if won:
        yield (
            f"sweep show {name}/{won.result.number} --yaml > winner.yaml && sweep run winner.yaml",
            "train the winner again",
        )
        yield f"sweep best {name} --export submission", "retrain it on train and val, and predict test"
    yield one.resume, "resume the study, or start it if its folder is gone"
    yield f"sweep show {name}/TRIAL", "one trial in detail"
    yield f"sweep ui {name}", "every curve and file of every trial, in MLflow"
    if one.study.database.exists():
        place = text.relative_path(one.study.database)
        yield f"optuna-dashboard sqlite:///{place}", "the search itself: contours, ranks, timeline"


# ------------------------------------------------------------------------------------------- charts
def _charts(one: StudyStatus, mattered: Importance | None) -> list[charts.Chart]:
    asked = opened(study_file.identity(one.study).get("train"))
    labels = parameter_names(asked)
    axes = [Axis.of(name, labels[name], each) for name, each in asked.items()]
    shares = [(share.name, share.share, share.error) for share in mattered.shares] if mattered else []
    minimize = bool(one.results) and one.results[0].minimize
    return charts.study(_dots(one.results), axes, one.metric, shares, minimize=minimize)


def _dots(results: Sequence[TrialResult]) -> list[Dot]:
    return [Dot(r.number, r.state, r.value, r.params) for r in results if r.value is not None]


def _hovers(results: Sequence[TrialResult]) -> dict[int, str]:
    return {dot.number: charts.hover(dot, results[0].metric) for dot in _dots(results)}
