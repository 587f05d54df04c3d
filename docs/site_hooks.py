"""Hooks for MkDocs: links out of docs/ work in the site as on GitHub, because the linked files are added to it."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<=\]\()([^)\s#]+)(?=(?:#[^)\s]*)?\))")
CODE = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)
PLACE = "project"  # where the files of the repository that lie outside docs/ stand in the site


def on_files(files: Files, config: Any) -> Files:
    """Add each file outside docs/ that a page links to, and the files that it links to in turn."""
    docs = Path(config["docs_dir"])
    waiting = [Path(file.abs_src_path) for file in files.documentation_pages() if file.abs_src_path]
    while waiting:
        for path in _linked(waiting.pop()):
            if not path.is_relative_to(docs) and files.get_file_from_path(place := _place(path)) is None:
                files.append(File.generated(config, place, abs_src_path=str(path)))
                waiting += [path] if path.suffix == ".md" else []
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Rewrite links for the site, and remove the backslash that GitHub needs before a pipe in code in tables."""
    source = Path(page.file.abs_src_path)
    here = Path(page.file.src_uri).parent
    docs = Path(config["docs_dir"])

    def moved(match: re.Match[str]) -> str:
        path = (source.parent / match[1]).resolve()
        if re.match(r"[a-z]+:", match[1]) or not path.exists():
            return match[1]
        target = path.relative_to(docs) if path.is_relative_to(docs) else Path(_place(path))
        return Path(*[".."] * len(here.parts), target).as_posix()

    parts = CODE.split(markdown)
    return "".join(part if part.startswith("```") else _pipes(LINK.sub(moved, part)) for part in parts)


def _linked(path: Path) -> list[Path]:
    text = CODE.sub("", path.read_text(encoding="utf-8"))
    found = [(path.parent / target).resolve() for target in LINK.findall(text) if ":" not in target]
    return [one for one in found if one.is_file()]


def _place(path: Path) -> str:
    return f"{PLACE}/{path.relative_to(ROOT).as_posix()}"


def _pipes(text: str) -> str:
    """Remove the backslash of an escaped pipe in code, which Python-Markdown would show."""
    return re.sub(r"^\|.*$", lambda row: re.sub(r"`[^`]*`", _plain, row[0]), text, flags=re.MULTILINE)


def _plain(code: re.Match[str]) -> str:
    return code[0].replace(r"\|", "|")
