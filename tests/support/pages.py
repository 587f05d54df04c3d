"""Pages in Markdown as the tests of the documents read them: fenced blocks, commands, links and headings."""

import re
from pathlib import Path


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(text: str, kind: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def scripts(text: str) -> list[tuple[str, str]]:
    """The shell blocks, each with the reason why no test runs it, or "": a comment `not run: REASON` before it."""
    found = re.findall(r"(?:^<!-- not run: (.+?) -->\n)?^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(block, reason) for reason, block in found]


def commands(text: str, program: str) -> list[str]:
    """The lines of shell blocks that call `program`, without comments."""
    lines = (line.split(" #")[0].strip() for block in blocks(text, "sh") for line in block.splitlines())
    return [line for line in lines if line.split(" ")[0] == program]


def mentioned(text: str, program: str) -> list[str]:
    """All calls of `program`: in shell blocks, behind variables too, and between backticks."""
    shell = (line.split(" #")[0].strip() for block in blocks(text, "sh") for line in block.splitlines())
    called = [re.sub(r"^(?:[A-Z_]+=\S+ )+", "", line) for line in shell]
    spans = re.findall(r"`([^`\n]+)`", prose(text))
    return [call for call in [*called, *spans] if re.match(rf"{program}(?: |$)", call)]


def prose(text: str) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def links(text: str) -> list[str]:
    """The targets of links and pictures that lead to files or headings."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(text))
    return [target for target in targets if not re.match(r"[a-z]+://", target)]


def anchors(text: str) -> set[str]:
    """What a link to a heading of the page may name, as GitHub and MkDocs make it."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
