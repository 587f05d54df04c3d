"""The report of a study: one HTML page that holds everything it shows. Written by hand; every word is escaped."""

import base64
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

from sweeper import best, documents, draw, leaderboard, overview, record, shown, spec
from sweeper.artist import Drawing
from sweeper.best import Winner
from sweeper.errors import UserError
from sweeper.overview import Standing
from sweeper.paths import StudyFolder
from sweeper.redact import redacted
from trainers import files
from trainers.config import Epoch
from trainers.data.summary import Summary

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
CSS = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2328; background: white; max-width: 64rem;
       margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.7rem; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; border-bottom: 2px solid #1f2328; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
table { border-collapse: collapse; font-size: 12.5px; }
th { text-align: left; border-bottom: 1.5px solid #1f2328; }
th, td { padding: .2rem .7rem .2rem 0; vertical-align: top; }
td { border-bottom: 1px solid #d0d7de; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
pre { font-size: 12.5px; line-height: 1.4; white-space: pre-wrap; overflow-wrap: anywhere;
      border-left: 3px solid #afb8c1; padding-left: 1rem; }
blockquote { margin: 0 0 1rem; padding-left: 1rem; border-left: 3px solid #1f2328; white-space: pre-line; }
figure { margin: 1rem 0 2rem; break-inside: avoid; }
figcaption { font-weight: 600; margin-bottom: .4rem; }
svg, img { max-width: 100%; height: auto; }
.trouble { border: 2px solid #1f2328; padding: .5rem 1rem; }
@media print { body { max-width: none; margin: 0; font-size: 11px; } h2, h3 { break-after: avoid; }
               tr { break-inside: avoid; } .wide { overflow: visible; } table { font-size: 8px; } }
"""


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
    drawings = {"study": draw.study(study)}
    if won:
        drawings["winner"] = draw.run(study.trial(won.result.number))
    for final in overview.finals(study):
        if final.done and final.folder.test_scores.exists():
            drawings[final.folder.root.name] = draw.run(final.folder)
        _into_card(study, final)
    troubles = tuple(dict.fromkeys(t for drawing in drawings.values() for t in drawing.troubles))
    standing = overview.standing(study)
    standing = replace(standing, holder=None) if closing else standing
    files.write_text(path, page(standing, won, drawings, troubles))
    return Report(path, drawings["study"].files, troubles)


def drawn(study: StudyFolder) -> Drawing:
    """The same, as what an artist was asked for."""
    made = write(study, closing=True)
    return Drawing(key=study.name, files=(*made.figures, made.path), troubles=made.troubles)


def _winner(study: StudyFolder) -> Winner | None:
    return best.winner(study) if shown.best(record.results(study)) else None


def _into_card(study: StudyFolder, final: overview.Final) -> None:
    """Let a final's card name its figures on test, and the winning trial's on val."""
    card, section = final.folder.card, "\n## Figures\n"
    if not card.exists():
        return
    folders = {"test": final.folder.figures, "val": study.trial(final.trial).figures}
    found = [(split, path) for split, folder in folders.items() for path in sorted(folder.glob("[!.]*"))]
    names = [(split, Path(os.path.relpath(path, card.parent)).as_posix()) for split, path in found]
    listed = "".join(f"- {split}: [{name}]({name})\n" for split, name in names)
    before = card.read_text(encoding="utf-8")
    after = f"{before.split(section)[0].rstrip()}\n{section}\n{listed}" if listed else before
    if after != before:
        files.write_text(card, after)


# --------------------------------------------------------------------------------------------- page
def page(one: Standing, won: Winner | None, drawings: Mapping[str, Drawing], troubles: Sequence[str]) -> str:
    """The whole document; the drawings of `study`, `winner` and the finals by name."""
    study = one.study
    parts = [*_head(one), *_troubles(troubles), *_data(study), *_board(study)]
    parts += _figures("study", drawings["study"], ["labels.svg"] if won else [])
    if won:
        parts += _won(won, drawings["winner"])
    for final in one.finals:
        parts += _final(final, drawings.get(final.folder.root.name))
    body = redacted("\n".join(parts))
    title = f"<title>{escape(study.name)}: report</title>"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{title}\n<style>{CSS}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _head(one: Standing) -> Iterator[str]:
    space = one.study.space
    yield f"<h1>{escape(one.study.name)}</h1>"
    if asked := question(space.read_text(encoding="utf-8") if space.exists() else ""):
        yield f"<blockquote>{escape(asked)}</blockquote>"
    standing = "\n".join(overview.status(one))
    yield f"<h2>How it stands</h2>\n<pre>{escape(standing)}</pre>"


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


def _data(study: StudyFolder) -> Iterator[str]:
    """What was understood of the data set when the study last ran."""
    if found := documents.read(study.data, Summary):
        yield "<h2>Data</h2>"
        yield f"<pre>{escape(chr(10).join(found.lines()))}</pre>"
        if found.notes:
            yield "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in found.notes) + "</ul>"


def _troubles(troubles: Sequence[str]) -> Iterator[str]:
    if troubles:
        said = "".join(f"<li>{escape(trouble)}</li>" for trouble in troubles)
        yield f'<div class="trouble"><strong>Not everything could be drawn.</strong><ul>{said}</ul></div>'


def _board(study: StudyFolder) -> Iterator[str]:
    yield "<h2>Trials</h2>"
    results = record.results(study)
    if not results:
        yield "<p>None has begun.</p>"
        return
    yield _table(*leaderboard.cells(leaderboard.frame(results, study)))
    if any(result.goal == "overall_accuracy" for result in results):
        yield "<p>~ marks trials within one standard error of the best: they are tied.</p>"


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name).replace('.', '.<wbr>')}</th>" for name in headers)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _won(won: Winner, drawing: Drawing) -> Iterator[str]:
    epochs = record.history(won.study.trial(won.result.number))
    yield f"<h2>The winner: trial {won.result.number}</h2>"
    yield f"<p>{escape(overview.best(won.result))}</p>"
    if won.confirmed:
        values = ", ".join(f"{value:.4f}" for value in won.confirmed)
        yield f"<p>Trained again with {len(won.confirmed)} new seeds: {values}.</p>"
    yield f"<h3>Recipe</h3><pre>{escape(spec.recipe_yaml(won.study.name, won.job.recipe).rstrip())}</pre>"
    if epochs:
        yield from _corrected(won.epoch)
    yield from _figures("winner", drawing)


def _corrected(epoch: Epoch) -> Iterator[str]:
    """What posterior correction gives, where it was tried."""
    if epoch.corrected:
        plain = epoch.plain or epoch.val
        rows = [
            [name, f"{getattr(plain, name):.4f}" if plain else "", f"{one.value:.4f}", f"{one.tau:.2f}"]
            for name, one in epoch.corrected.items()
        ]
        yield "<h3>Correction for class frequency: logits - τ log(prior), cross-fitted on val</h3>"
        yield "<p>Each metric with the τ that suits it best; a model has one.</p>"
        yield _table(["metric", "uncorrected", "corrected", "τ"], rows)


def _final(final: overview.Final, drawing: Drawing | None) -> Iterator[str]:
    yield f"<h2>Final {escape(final.folder.root.name)}</h2>"
    if not final.done:
        yield "<p>Not finished.</p>"
    for score in final.scores:
        yield f"<p>A board's score: {score['value']:g} {escape(str(score['note']))}</p>"
    if final.folder.card.exists():
        yield f"<pre>{escape(final.folder.card.read_text().rstrip())}</pre>"
    if drawing:
        yield from _figures(final.folder.root.name, drawing, ["labels.svg"])


# ------------------------------------------------------------------------------------------ figures
def _figures(prefix: str, drawing: Drawing, without: Sequence[str] = ()) -> Iterator[str]:
    for path in drawing.files:
        title = TITLES.get(path.name, path.name)
        if path.name in without:
            continue
        if path.suffix == ".svg":
            yield _svg(path.read_text(), f"{prefix}-{path.stem}", title)
        else:
            data = base64.b64encode(path.read_bytes()).decode()
            source = f"data:image/png;base64,{data}"
            yield _figure(title, f'<img alt="{escape(title)}" src="{source}">')


def _svg(text: str, prefix: str, title: str) -> str:
    """The drawing as a part of the page: its ids made its own, no namespace, which HTML knows by itself."""
    prefix = re.sub(r"\W", "-", prefix)
    return _figure(title, re.sub(r"<[^>]*>", lambda tag: _own(tag[0], prefix), text))


def _own(tag: str, prefix: str) -> str:
    """A tag of a drawing; the words between tags may be names that look like one's inside, and stay."""
    tag = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", tag)
    tag = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', tag)
    tag = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', tag)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", tag)


def _figure(title: str, content: str) -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption>\n{content.strip()}\n</figure>"
