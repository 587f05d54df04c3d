"""The process that draws: a Drawing on stdout for every Order on stdin, until that ends."""

import os
import sys

from sweeper.figures import runs
from sweeper.figures.process import FigureRequest, FigureResult
from sweeper.results import page
from sweeper.store.paths import RunFolder, StudyFolder


def serve(order: FigureRequest) -> FigureResult:
    """Draw what is ordered; whatever goes wrong is reported, and the process lives on."""
    try:
        drawing = page.drawn(StudyFolder(order.folder)) if order.study else runs.run(RunFolder(order.folder))
    except Exception as error:  # noqa: BLE001  (the boundary: one folder's trouble must not reach the next)
        drawing = FigureResult(key=order.key, troubles=(runs.reason(error),))
    return drawing.model_copy(update={"key": order.key})


def main() -> None:
    os.nice(10)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    for line in sys.stdin:
        out.write(serve(FigureRequest.model_validate_json(line)).model_dump_json() + "\n")
        out.flush()


if __name__ == "__main__":
    main()
