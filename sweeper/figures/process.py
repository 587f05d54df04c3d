"""The client of the drawing process, so that nobody waits for figures. Draws nothing, loads no drawing library.

Requests are JSON lines on the process's stdin. It exits when stdin closes, so it never outlives the client.
"""

import contextlib
import subprocess
import threading
from pathlib import Path

from pydantic import ValidationError

from sweeper.store import paths
from sweeper.system import subprocesses
from sweeper.trial import Message

CLOSE_TIMEOUT_S = 5.0  # seconds for the process to exit after its stdin closes


class FigureRequest(Message):
    """To the process: draw the missing figures of a run's folder, or those of a study and its report."""

    key: str
    folder: Path
    study: bool = False


class FigureResult(Message):
    """From the process: all figures that exist now, and one line per failure."""

    key: str
    files: tuple[Path, ...] = ()
    troubles: tuple[str, ...] = ()


class FigureClient:
    """Sends requests one by one, the study's first, from a thread that alone communicates with the process."""

    def __init__(self) -> None:
        self._asked: set[str] = set()
        self._waiting: list[FigureRequest] = []
        self._busy = self._closed = self._dead = False
        self._finished: list[tuple[FigureRequest, FigureResult]] = []
        self._process: subprocess.Popen[str] | None = None
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="figures", daemon=True)

    def ask(self, order: FigureRequest) -> None:
        """Queue a request and return at once. A key that was requested before is ignored."""
        with self._change:
            if self._closed or self._dead or order.key in self._asked:
                return
            self._asked.add(order.key)
            self._waiting.insert(0 if order.study else len(self._waiting), order)
            if self._thread.ident is None:
                self._thread.start()
            self._change.notify_all()

    def finished(self) -> list[tuple[FigureRequest, FigureResult]]:
        """Return the requests finished since the last call, with their results."""
        with self._change:
            found, self._finished = self._finished, []
            return found

    @property
    def left(self) -> int:
        """The number of unfinished requests."""
        with self._change:
            return len(self._waiting) + self._busy

    def wait(self, timeout: float) -> bool:
        """Wait until a request is finished or none is left; False if neither happens in `timeout` seconds."""
        with self._change:
            return self._change.wait_for(lambda: bool(self._finished) or not (self._waiting or self._busy), timeout)

    def close(self) -> None:
        """Kill the process at once, dropping unfinished requests."""
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
        """Wait for the next request and return it; None after `close`."""
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
        """Return the process's result. If it gives none, it gets no more requests."""
        try:
            answer = self._answer(order)
            if answer:
                return FigureResult.model_validate_json(answer)
            trouble = f"the drawing process exited with code {self._end()}"
        except (OSError, ValidationError) as error:
            trouble = f"the drawing process does not answer ({error})".splitlines()[0]
        self._dead = True
        return FigureResult(key=order.key, troubles=(trouble,))

    def _answer(self, order: FigureRequest) -> str:
        """Return a line, or "" from a process that has exited."""
        process = self._process = self._process or _start()
        with self._change:
            if self._closed:
                return ""
        if process.stdin is None or process.stdout is None:
            raise OSError("it has no pipes")
        with contextlib.suppress(BrokenPipeError):  # it has exited, as its empty answer shows
            process.stdin.write(order.model_dump_json() + "\n")
            process.stdin.flush()
        return process.stdout.readline()

    def _end(self) -> int | None:
        """Stop the process and return its exit code, or None if there is no process."""
        process, self._process = self._process, None
        if process is None:
            return None
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(OSError):  # a request that it did not read
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
        start_new_session=True,  # Ctrl-C is for the coordinator only
        env={"MPLCONFIGDIR": str(paths.fonts()), "OMP_NUM_THREADS": "1", **subprocesses.environment()},
    )
