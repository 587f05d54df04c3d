"""The last lines of a terminal, rewritten in place; only lines that changed are written."""

from rich.console import RenderableType
from rich.text import Text

from sweeper.terminal.output import BrokenPipeSafeStream, console

CLEAR_LINE, CLEAR_REST = "\x1b[2K", "\x1b[J"


class Screen:
    """A frame at the bottom of a terminal, with lines scrolling above it. The cursor stays on its last line."""

    def __init__(self, out: BrokenPipeSafeStream) -> None:
        self._out, self._console = out, console(out)
        self._lines: list[str] = []
        self._width = 0

    @property
    def size(self) -> tuple[int, int]:
        """The current columns and lines of the terminal."""
        return self._console.size

    def draw(self, frame: RenderableType) -> None:
        """Replace the previous frame with `frame`."""
        lines = self._rendered(frame)
        if self._console.width != self._width or len(lines) < len(self._lines):
            self._put(self._erased() + "\r\n".join(lines) + "\r")
        elif lines != self._lines:
            self._put(self._changed(lines))
        self._lines, self._width = lines, self._console.width

    def say(self, text: str) -> None:
        """Write a line above the frame."""
        above, frame = self._printed(Text(text)), self._lines
        self._put(self._erased() + "\r\n".join([*above, *frame]) + ("\r" if frame else "\r\n"))
        self._lines = frame

    def close(self) -> None:
        """Leave the frame in place; later output appears below it."""
        if self._lines:
            self._put("\r\n")
        self._lines = []

    def _rendered(self, frame: RenderableType) -> list[str]:
        """Return the lines of the frame that fit the terminal."""
        lines, room = self._printed(frame), max(2, self._console.height - 1)
        return lines if len(lines) <= room else [*lines[: room - 1], "..."]

    def _printed(self, what: RenderableType) -> list[str]:
        with self._console.capture() as printed:
            self._console.print(what)
        return [line.rstrip() for line in printed.get().splitlines()]

    def _erased(self) -> str:
        """Return the codes that erase the frame. A terminal that was made narrower has wrapped its lines."""
        width = max(1, self._console.width)
        above = sum(max(1, -(-Text.from_ansi(line).cell_len // width)) for line in self._lines[:-1])
        self._lines = []
        return _up(above) + CLEAR_REST

    def _changed(self, lines: list[str]) -> str:
        """Return the codes that turn the frame into these lines, which must be at least as many."""
        before = self._lines + [""] * (len(lines) - len(self._lines))
        pairs = zip(before, lines, strict=True)
        return _up(len(self._lines) - 1) + "\r\n".join(
            "" if old == new else f"{CLEAR_LINE}{new}\r" for old, new in pairs
        )

    def _put(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def _up(lines: int) -> str:
    return "\r" + (f"\x1b[{lines}A" if lines > 0 else "")
