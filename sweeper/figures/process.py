"""Has figures drawn by a process of its own, so that nobody waits for them. Draws nothing, loads no library.

The process lives as long as whoever asks: its orders come as JSON lines, and it ends where they end.
"""

import contextlib
import subprocess
import threading
from pathlib import Path

from pydantic import ValidationError

from sweeper.store import paths
from sweeper.system import subprocesses
from sweeper.trial import Message

CLOSE_TIMEOUT_S = 5.0  # that a process without orders may take to be gone


class FigureRequest(Message):
    """To the process: draw what a run's folder lacks; or a study's, its report included."""

    key: str
    folder: Path
    study: bool = False


class FigureResult(Message):
    """From the process: every figure that is there now, and in a line each what could not be drawn."""

    key: str
    files: tuple[Path, ...] = ()
    troubles: tuple[str, ...] = ()


class FigureClient:
    """Has orders drawn one after the other, the study's first, by a thread that alone speaks to the process."""

    def __init__(self) -> None:
        self._asked: set[str] = set()
        self._waiting: list[FigureRequest] = []
        self._busy = self._closed = self._dead = False
        self._finished: list[tuple[FigureRequest, FigureResult]] = []
        self._process: subprocess.Popen[str] | None = None
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="figures", daemon=True)

    def ask(self, order: FigureRequest) -> None:
        """Have it drawn some time; returns at once. The same key again is not drawn again."""
        with self._change:
            if self._closed or self._dead or order.key in self._asked:
                return
            self._asked.add(order.key)
            self._waiting.insert(0 if order.study else len(self._waiting), order)
            if self._thread.ident is None:
                self._thread.start()
            self._change.notify_all()

    def finished(self) -> list[tuple[FigureRequest, FigureResult]]:
        """What was drawn since this was last asked."""
        with self._change:
            found, self._finished = self._finished, []
            return found

    @property
    def left(self) -> int:
        """How many orders are not done."""
        with self._change:
            return len(self._waiting) + self._busy

    def wait(self, timeout: float) -> bool:
        """Until something is finished, or nothing is left; False where neither comes in `timeout` seconds."""
        with self._change:
            return self._change.wait_for(lambda: bool(self._finished) or not (self._waiting or self._busy), timeout)

    def close(self) -> None:
        """End the process, whatever it is at; what it has not finished is not waited for."""
        with self._change:
            self._closed = True
            self._waiting.clear()
            process = self._process
            self._change.notify_all()
        if process:
            process.kill()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_TIMEOUT_S)

    def _work(self) -> None:
        try:
            while order := self._next():
                self._finish(order, self._draw(order))
        finally:
            self._end()

    def _next(self) -> FigureRequest | None:
        """The next order, waiting for one; None when there will be no other."""
        with self._change:
            self._change.wait_for(lambda: self._closed or self._waiting)
            if self._closed:
                return None
            self._busy = True
            return self._waiting.pop(0)

    def _finish(self, order: FigureRequest, drawing: FigureResult) -> None:
        with self._change:
            self._busy = False
            if self._dead:
                self._waiting.clear()
            if not self._closed:
                self._finished.append((order, drawing))
            self._change.notify_all()

    def _draw(self, order: FigureRequest) -> FigureResult:
        """The process's answer. Where it gives none, it is asked no more."""
        try:
            answer = self._answer(order)
            if answer:
                return FigureResult.model_validate_json(answer)
            trouble = f"the process that draws has ended with code {self._end()}"
        except (OSError, ValidationError) as error:
            trouble = f"the process that draws does not answer ({error})".splitlines()[0]
        self._dead = True
        return FigureResult(key=order.key, troubles=(trouble,))

    def _answer(self, order: FigureRequest) -> str:
        """A line, or nothing from a process that has ended."""
        process = self._process = self._process or _start()
        with self._change:
            if self._closed:
                return ""
        if process.stdin is None or process.stdout is None:
            raise OSError("it has no pipes")
        with contextlib.suppress(BrokenPipeError):  # it has ended, as its answer shows
            process.stdin.write(order.model_dump_json() + "\n")
            process.stdin.flush()
        return process.stdout.readline()

    def _end(self) -> int | None:
        """End the process; its exit code, or None where there is none."""
        process, self._process = self._process, None
        if process is None:
            return None
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(OSError):  # an order that it no longer took
                    pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(CLOSE_TIMEOUT_S)
        process.kill()
        return process.wait()


def _start() -> "subprocess.Popen[str]":
    return subprocess.Popen(
        subprocesses.python("-m", "sweeper.results.draw_process"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # Ctrl-C is the coordinator's to hear
        env={"MPLCONFIGDIR": str(paths.fonts()), "OMP_NUM_THREADS": "1", **subprocesses.environment()},
    )
