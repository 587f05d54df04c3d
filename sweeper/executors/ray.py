"""A Ray cluster: one actor per GPU, or per node if no node has GPUs, each with the local executor of its machine.

Ray finds resources, reserves them and notices losses. Trials run as they do without it: in separate processes, in
folders that every node sees.
"""

import contextlib
import os
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["RAY_gcs_rpc_server_reconnect_timeout_s"] = "1000000"  # noqa: SIM112  else Ray ends us with its head
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray  # reads them on import
from ray._private import worker as driver
from ray.exceptions import ActorUnavailableError, RayError
from ray.job_config import JobConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeper.errors import EnvironmentFault
from sweeper.executors import local
from sweeper.executors.node import NodeExecutor, NodeReply, NodeRequest, NodeSettings, Opened
from sweeper.executors.watchdog import AwakeClock, HangLimits
from sweeper.store.paths import RunFolder
from sweeper.system.devices import Count
from sweeper.system.signals import HANDLED
from sweeper.trial import Done, Failed, Job, Progress
from trainers.support.position import Position

SURVEY_INTERVAL_S = 2.0  # seconds between two surveys of the cluster's resources
POLL_INTERVAL_S = 0.5  # seconds that an actor waits for its workers' messages before it answers
MAX_BROKEN_ACTORS = 3  # actors in a row that fail to start before the sweep gives up
HEAD_TIMEOUT_S = 60.0  # seconds without an answer from the cluster's head
CONNECT_TIMEOUT_S = 5.0  # seconds to connect to it
SHUTDOWN_GRACE_S = 5.0  # seconds for an actor to end its workers


class NodeActor(NodeExecutor):
    """The actor that works for a sweep on a node; Ray's dashboard shows it under this name."""

    def open(self, setting: str) -> str:
        """Open slots on the GPUs that Ray has reserved; return Opened as JSON."""
        return self.take_up(setting, ray.get_gpu_ids())

    def close(self) -> None:
        """End the workers and this process."""
        super().close()
        ray.actor.exit_actor()


@dataclass
class ActorSlot:
    """An actor, the pending call to it, and the contents of the next one."""

    node: str
    host: str
    actor: Any
    call: Any
    name: str = ""  # empty until it has answered
    free: int = 0
    jobs: dict[str, Job] = field(default_factory=dict)
    starts: list[Job] = field(default_factory=list)
    answers: list[tuple[str, bool]] = field(default_factory=list)
    positions: Mapping[str, Position] = field(default_factory=dict)  # of running trials, within their epochs
    since: float = 0.0  # start of the pending call

    def send(self, now: float) -> None:
        """Call the actor, unless a call is pending or it has no jobs."""
        if self.call is None and self.jobs:
            order = NodeRequest(starts=tuple(self.starts), answers=tuple(self.answers))
            self.call, self.since = self.actor.exchange.remote(order.model_dump_json(), POLL_INTERVAL_S), now
            self.starts, self.answers = [], []


@dataclass(frozen=True)
class NodeShare:
    """The resources of a node: the number of places for actors, and the CPUs and GPUs of each."""

    host: str
    places: int
    cpus: int
    gpus: int


class ClusterMonitor:
    """Surveys the nodes' resources in a separate thread, since the query blocks while the cluster's head is gone."""

    def __init__(self, *, cpu: bool) -> None:
        self._cpu, self._ended = cpu, threading.Event()
        self._here = ray.get_runtime_context().get_node_id()
        self._news: dict[str, NodeShare] | None = None
        self._heard, self.cut_off = time.monotonic(), False  # cut off: this machine is no longer part of the cluster
        self._look()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    @property
    def age(self) -> float:
        """The seconds since the last answer."""
        return time.monotonic() - self._heard

    def news(self) -> dict[str, NodeShare] | None:
        """Return the latest answer if it has not been returned before, else None."""
        news, self._news = self._news, None
        return news

    def close(self) -> None:
        """Stop the survey, without waiting for a query that stays unanswered."""
        self._ended.set()
        self._thread.join(SURVEY_INTERVAL_S / 2)

    def _ask(self) -> None:
        while not self._ended.wait(SURVEY_INTERVAL_S):
            with contextlib.suppress(RayError):  # `age` keeps growing instead
                self._look()

    def _look(self) -> None:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        self.cut_off = self._here not in {node["NodeID"] for node in nodes}
        self._news, self._heard = _shares(nodes, cpu=self._cpu), time.monotonic()


class Ray:
    """An executor on all GPUs of a cluster, or on all its nodes if it has no GPUs.

    Nodes may come and go, and others may take GPUs for a time: trials run wherever there is room now. Jobs that are
    lost with an actor or a node become Failed(died). Actors end with this process, however it ends. Nodes must see
    the study's `lock` and an `image` of its data; unusable ones are reported through `say`.

    Raises EnvironmentFault if no cluster answers at `address` or no node can be used.
    """

    def __init__(
        self,
        address: str,
        lock: Path,
        image: Path,
        say: Callable[[str], None],
        *,
        slots: Count = 1,
        cpu: bool = False,
    ) -> None:
        self._say, self._slots, self._lock, self._image = say, slots, lock, image
        self._places: list[ActorSlot] = []
        self._ready: deque[Progress | Done | Failed] = deque()
        self._refused: dict[str, str] = {}  # unusable nodes, and why
        self._broken = 0
        self._awake, self._silence = AwakeClock(), HangLimits.read().silence
        _connect(address)
        self._roll = ClusterMonitor(cpu=cpu)

    def free(self) -> int:
        self._survey()
        return sum(place.free for place in self._places)

    def start(self, job: Job) -> str:
        place = max(self._places, key=lambda one: one.free)
        place.free -= 1
        place.jobs[job.key] = job
        place.starts.append(job)
        place.send(self._awake.now())
        return place.name

    def next(self, timeout: float) -> Progress | Done | Failed | None:
        deadline = time.monotonic() + timeout
        while not self._ready:
            self._survey()
            left = deadline - time.monotonic()
            self._listen(max(left, 0.0))
            if left <= 0:
                break
        return self._ready.popleft() if self._ready else None

    def positions(self) -> Mapping[str, Position]:
        return {key: at for place in self._places for key, at in place.positions.items() if key in place.jobs}

    def answer(self, key: str, keep: bool) -> None:
        for place in self._places:
            if key in place.jobs:
                place.answers.append((key, keep))
                place.send(self._awake.now())

    def close(self, *, kill: bool = False) -> None:
        """End the workers; without `kill`, busy ones first finish their epoch. Messages not yet read are lost."""
        while not kill and any(place.jobs for place in self._places):
            if isinstance(message := self.next(1.0), Progress):
                self.answer(message.key, keep=False)
        with contextlib.suppress(RayError):
            ended = [place.actor.close.remote() for place in self._places if place.name]
            if ended:
                ray.wait(ended, num_returns=len(ended), timeout=SHUTDOWN_GRACE_S)
        for place in list(self._places):
            self._discard(place)
        self._roll.close()
        ray.shutdown()

    # ---------------------------------------------------------------------------------- places
    def _survey(self) -> None:
        """Request an actor on every resource of the cluster that has none yet; raise if the cluster is unusable."""
        if shares := self._roll.news():
            held = Counter(place.node for place in self._places)
            for node in shares.keys() - self._refused.keys():
                self._places += [self._open(node, shares[node]) for _ in range(shares[node].places - held[node])]
        if self._roll.cut_off:
            raise EnvironmentFault("Ray is no longer running on this machine", where="--ray", help=AGAIN)
        if self._roll.age > HEAD_TIMEOUT_S and not self._places:
            raise EnvironmentFault("the Ray cluster no longer answers", where="--ray", help=AGAIN)
        if self._refused and not self._places:
            raise EnvironmentFault("no node of the cluster can be used", where="--ray", help=_reasons(self._refused))

    def _open(self, node: str, share: NodeShare) -> ActorSlot:
        made = ray.remote(NodeActor).options(
            num_cpus=share.cpus,
            num_gpus=share.gpus,
            max_restarts=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        )
        setting = NodeSettings(
            folder=Path.cwd(),
            lock=self._lock,
            content=self._lock.read_text(encoding="utf-8"),
            image=self._image,
            per_device=self._slots,
            threads=max(1, share.cpus),
            variables={name: text for name, text in os.environ.items() if name.startswith("SWEEP_")},
        )
        actor = made.remote()
        return ActorSlot(node, share.host, actor, actor.open.remote(setting.model_dump_json()), since=float("inf"))

    def _discard(self, place: ActorSlot) -> None:
        self._places.remove(place)
        with contextlib.suppress(RayError):
            ray.kill(place.actor)

    # -------------------------------------------------------------------------------- messages
    def _listen(self, timeout: float) -> None:
        """Wait for the first reply and handle it; give up actors that have not answered for too long."""
        now = self._awake.now()
        for place in self._places:
            place.send(now)
        calls = {place.call: place for place in self._places if place.call is not None}
        if not calls:
            time.sleep(timeout)
            return
        ended, _ = ray.wait(list(calls), num_returns=1, timeout=timeout)
        for call in ended:
            self._receive(calls[call])
        now = self._awake.now()
        for place in [one for one in calls.values() if one.call is not None and now - one.since > self._silence]:
            self._lose(place, "it does not answer")

    def _receive(self, place: ActorSlot) -> None:
        call, place.call = place.call, None
        try:
            text = ray.get(call)
        except RayError as error:
            self._lose(place, _words(error))
            return
        if not place.name:
            self._opened(place, Opened.model_validate_json(text))
            return
        reply = NodeReply.model_validate_json(text)
        place.free = max(0, reply.free - len(place.starts))
        place.positions = reply.positions
        for message in reply.messages:
            if not isinstance(message, Progress):
                del place.jobs[message.key]
            self._ready.append(message)

    def _opened(self, place: ActorSlot, opened: Opened) -> None:
        if opened.fault:
            self._discard(place)
            if place.node not in self._refused:  # each GPU of the node has a place
                self._refused[place.node] = f"{place.host} {opened.fault}"
                self._say(f"left out: {self._refused[place.node]}")
            return
        self._broken = 0
        place.name, place.free = f"{place.host}/{opened.name}", opened.free

    def _lose(self, place: ActorSlot, why: str) -> None:
        """Give up an actor, and report the jobs that ran on it as Failed."""
        self._discard(place)
        if not place.name:
            self._broken += 1
            if self._broken >= MAX_BROKEN_ACTORS:
                raise EnvironmentFault(f"no actor starts on {place.host}: {why}", where="--ray", help=INSTALLED)
        for job in place.jobs.values():
            text, detail = f"{place.name} was lost: {why}", local.tail(RunFolder(job.folder))
            self._ready.append(Failed(key=job.key, failure="died", text=text[:300], detail=detail))


BEGIN = (
    "start one with ray start --head, which prints its address; if it uses a token, set RAY_AUTH_TOKEN_PATH here too"
)
AGAIN = "restart the cluster, then run the same command again"
INSTALLED = "install this project in the same Python on every node; the cluster's log has details"


def _words(error: Exception) -> str:
    """Return the first line of Ray's message, or words of ours if an actor is unreachable: Ray gives only numbers."""
    if isinstance(error, ActorUnavailableError):
        return "it cannot be reached"
    said = str(error).strip().partition("\n")[0].rstrip(".")
    return said[:1].lower() + said[1:]


def _reasons(refused: Mapping[str, str]) -> str:
    return (
        "; ".join(sorted(set(refused.values()))) + "; put the project, the data and mlruns where every node sees them"
    )


def _shares(nodes: Sequence[Mapping[str, Any]], *, cpu: bool) -> dict[str, NodeShare]:
    """Return the resources of each node: its GPUs, each with its share of the cores, or its cores if no node has
    GPUs.
    """
    gpus = any(node["Resources"].get("GPU", 0) >= 1 for node in nodes) and not cpu
    return dict(
        _share_of(node, gpus=gpus) for node in nodes if node["Resources"].get("GPU" if gpus else "CPU", 0) >= 1
    )


def _share_of(node: Mapping[str, Any], *, gpus: bool) -> tuple[str, NodeShare]:
    has = node["Resources"]
    places = int(has["GPU"]) if gpus else 1
    return node["NodeID"], NodeShare(node["NodeManagerHostname"], places, int(has.get("CPU", 0)) // places, int(gpus))


def _connect(address: str) -> None:
    driver._worker_logs_enabled = False  # otherwise it prints the output of its own processes on stdout
    try:
        _knock(address)
        with _our_signals():
            apart = JobConfig(_client_job=True)  # otherwise actors import modules from the current folder
            ray.init(
                address=address, log_to_driver=False, logging_level="critical", namespace="sweep", job_config=apart
            )
    except (OSError, RayError, RuntimeError, ValueError) as error:
        said = _words(error)
        raise EnvironmentFault(f"no Ray cluster at {address}: {said}", where="--ray", help=BEGIN) from None


def _knock(address: str) -> None:
    """Raise OSError if nothing listens at HOST:PORT; Ray itself would try for two minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()


@contextmanager
def _our_signals() -> Iterator[None]:
    """Restore our signal handlers, which stop a sweep properly, after Ray has replaced them."""
    before = {number: signal.getsignal(number) for number in HANDLED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
