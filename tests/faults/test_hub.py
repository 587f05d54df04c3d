"""H1: published weights that the model hub does not give are told before a study exists, in bounded time."""

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.cli import SPACE, lay_out, sweep

pytestmark = pytest.mark.process

PATIENCE = 45.0  # seconds: the library's 10 for an answer, starting torch, and a busy machine


@contextmanager
def refusing() -> Iterator[str]:
    """A port where nobody listens."""
    with closing(socket.create_server(("127.0.0.1", 0))) as one:
        port = one.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


@contextmanager
def silent() -> Iterator[str]:
    """A hub that takes every call and never says a word."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=64)) as one:
        yield f"http://127.0.0.1:{one.getsockname()[1]}"


class Busy(http.server.BaseHTTPRequestHandler):
    """Answers that it cannot."""

    def do_HEAD(self) -> None:
        self.send_response(503)
        self.end_headers()

    do_GET = do_HEAD  # noqa: N815

    def log_message(self, *_: object) -> None: ...


class Listing(Busy):
    """Answers at its door, and is silent about every file."""

    def do_HEAD(self) -> None:
        if self.path != "/":
            self.server.over.wait(60)  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()


@contextmanager
def served(handler: type[Busy]) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.over = threading.Event()  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.over.set()  # type: ignore[attr-defined]
        server.shutdown()


HUBS = {
    "refusing": refusing,
    "silent": silent,
    "busy": lambda: served(Busy),
    "silent about files": lambda: served(Listing),
}
ASKED = {"silent about files": {"HF_HUB_ETAG_TIMEOUT": "3"}}  # a bound of the user's own is kept to


@pytest.mark.fault("H1")
@pytest.mark.parametrize(
    "kind", [one if one == "refusing" else pytest.param(one, marks=pytest.mark.many) for one in HUBS]
)
def test_a_hub_that_gives_nothing_is_told_before_a_study_exists(tmp_path: Path, case, kind):
    lay_out(tmp_path, SPACE.replace("pretrained: false", "pretrained: true"))
    both = "train.backbone={choice: [resnet18, resnet34]}"
    with HUBS[kind]() as address:
        began = time.monotonic()
        changes = {"SWEEP_TRAINER": "", "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hub")}
        ended = sweep(tmp_path, "run", "space.yaml", "--set", both, **changes, **ASKED.get(kind, {}))
        assert time.monotonic() - began < PATIENCE
    assert ended.returncode == 3, ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stderr.count("the weights of resnet18, resnet34 are not on this machine") == 1
    assert "Error" not in ended.stderr
    for way_out in ("train.weights=PATH", "HF_HOME", "train.pretrained=false"):
        assert way_out in ended.stderr
    assert not (tmp_path / "mlruns" / "studies").exists()
