"""Has figures drawn by a process of its own, so that nobody waits for them. Draws nothing, loads no library.

The process lives as long as whoever asks: its orders come as JSON lines, and it ends, at once, where they end.
"""

import contextlib
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from sweeper import children, paths
from sweeper.trial import Word


class Order(Word):
    """To the process: draw what a run's folder lacks; or a study's, its report included."""

    key: str
    folder: Path
    study: bool = False


class Drawing(Word):
    """From the process: every figure that is there now, and in a line each what could not be drawn."""

    key: str
    files: tuple[Path, ...] = ()
    troubles: tuple[str, ...] = ()


class Artist:
    """Takes orders; `finished` is called, in a thread of its own, whenever something was drawn.

    `note` is told once of each reason why something was not.
    """

    def __init__(self, finished: Callable[[], None], note: Callable[[str], None]) -> None:
        self._finished, self._note = finished, note
        self._process: subprocess.Popen[str] | None = None
        self._asked: set[str] = set()
        self._open: set[str] = set()
        self._ready: list[Drawing] = []
        self._told: set[str] = set()
        self._closed = False
        self._change = threading.Condition()

    def ask(self, order: Order) -> None:
        """Have it drawn some time; returns at once. The same key again is not drawn again."""
        with self._change:
            if self._closed or order.key in self._asked:
                return
            self._asked.add(order.key)
            self._open.add(order.key)
            process = self._process = self._process or self._start()
        try:
            if process.stdin:
                process.stdin.write(order.model_dump_json() + "\n")
                process.stdin.flush()
        except OSError:
            self._ended(process)

    def ready(self) -> list[Drawing]:
        """What was drawn and not yet taken."""
        with self._change:
            return list(self._ready)

    def taken(self, drawing: Drawing) -> None:
        with self._change:
            self._ready.remove(drawing)

    @property
    def drawn(self) -> int:
        """How many orders are done."""
        with self._change:
            return len(self._asked) - len(self._open)

    def wait(self) -> None:
        """Until nothing is being drawn, or nobody draws any more."""
        with self._change:
            self._change.wait_for(lambda: not self._open)

    def close(self) -> None:
        """End the process, whatever it is at; what it has not finished is not waited for."""
        with self._change:
            self._closed = True
            self._open.clear()
            self._change.notify_all()
            process, self._process = self._process, None
        if process:
            process.kill()
            process.wait()
            if process.stdin:
                with contextlib.suppress(OSError):  # an order that it no longer took
                    process.stdin.close()

    def _start(self) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            children.python("-m", "sweeper.draw"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C is the coordinator's to hear
            env={"MPLCONFIGDIR": str(paths.fonts()), "OMP_NUM_THREADS": "1", **children.environment()},
        )
        threading.Thread(target=self._listen, args=(process,), name="artist", daemon=True).start()
        return process

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        if process.stdout:
            with process.stdout as lines:
                for line in lines:
                    self._hear(Drawing.model_validate_json(line))
        self._ended(process)

    def _hear(self, drawing: Drawing) -> None:
        for trouble in drawing.troubles:
            self._tell(f"{drawing.key}: {trouble}", trouble)
        with self._change:
            self._open.discard(drawing.key)
            self._ready.append(drawing)
            self._change.notify_all()
        self._finished()

    def _ended(self, process: "subprocess.Popen[str]") -> None:
        with self._change:
            lost, self._closed = bool(self._open) and not self._closed, True
            self._open.clear()
            self._change.notify_all()
        if lost:
            self._tell(f"the process that draws has ended with code {process.wait()}", "ended")

    def _tell(self, text: str, reason: str) -> None:
        if reason not in self._told:
            self._told.add(reason)
            self._note(f"figures are missing: {text}; `sweep report` tries again")
