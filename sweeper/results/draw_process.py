"""The drawing process: writes a FigureResult to stdout for each FigureRequest on stdin, until stdin closes."""

import os
import sys
import threading
from queue import SimpleQueue

from sweeper.figures.process import FigureRequest, FigureResult
from sweeper.store.paths import RunFolder, StudyFolder


def serve(order: FigureRequest) -> FigureResult:
    """Draw the requested figures; any failure is reported, and the process stays alive."""
    from sweeper.figures import runs  # drawing libraries load in this process only
    from sweeper.results import page

    try:
        drawing = page.drawn(StudyFolder(order.folder)) if order.study else runs.run(RunFolder(order.folder))
    except Exception as error:  # noqa: BLE001  (the boundary: one folder's trouble must not reach the next)
        drawing = FigureResult(key=order.key, troubles=(runs.reason(error),))
    return drawing.model_copy(update={"key": order.key})


def main() -> None:
    os.nice(10)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keeps output of libraries out of the answers
    orders: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_read, args=(orders,), name="orders", daemon=True).start()
    while True:
        out.write(serve(FigureRequest.model_validate_json(orders.get())).model_dump_json() + "\n")
        out.flush()


def _read(orders: SimpleQueue[str]) -> None:
    """Queue the requests. Exits when stdin closes: the requester is gone, and nobody waits for the figures."""
    for line in sys.stdin:
        orders.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
