"""One warm process per slot on this machine."""

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweeper.executors.packing import Packing
from sweeper.executors.watchdog import MAX_POLL_INTERVAL_S, AwakeClock, HangLimits, Watch
from sweeper.store.paths import RunFolder
from sweeper.system import devices, subprocesses
from sweeper.system.devices import Count, Slot
from sweeper.trial import Done, Failed, Failure, Job, Progress
from sweeper.worker import protocol
from trainers.support.position import Position

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
SHUTDOWN_GRACE_S = 5.0  # seconds for a process to end after its pipe has
TAIL = 8_000  # bytes of log attached to the report of a dead worker


@dataclass
class _Worker:
    """A process and the job it is running."""

    slot: Slot
    process: subprocess.Popen[bytes]
    channel: socket.socket
    lines: protocol.LineReader
    job: Job | None = None
    waiting: bool = False  # True while its last Progress is unanswered
    heard: float = 0.0  # time of its last message
    moved: float = 0.0  # start of its current epoch
    at: Position | None = None  # position within the epoch

    def send(self, word: protocol.Start | protocol.Answer) -> None:
        """Send `word`. If the process is gone, ignore that: its death is about to be read from the pipe."""
        with contextlib.suppress(OSError):
            protocol.send(self.channel, word)


class Local:
    """Starts a process when a slot is first used and keeps it as long as its jobs end well.

    With `packing`, a device takes as many jobs as that allows and divides its cores among them. A worker that sends
    nothing, not even a heartbeat, or finishes no epoch within the limits of `patience`, is killed, and its job
    becomes Failed(hung).
    """

    def __init__(
        self, slots: Sequence[Slot], *, packing: Packing | None = None, patience: HangLimits | None = None
    ) -> None:
        self._idle: list[Slot] = list(reversed(slots))
        self._shared = Counter(slot.home for slot in slots)
        self._packing = packing
        self._workers: dict[str, _Worker] = {}
        self._selector = selectors.DefaultSelector()
        self._ready: deque[Progress | Done | Failed] = deque()
        self._watch, self._awake = Watch(patience or HangLimits.read()), AwakeClock()

    @classmethod
    def on(cls, slots: Sequence[Slot], per_device: Count) -> "Local":
        """Return an executor on these slots; with `per_device` auto it uses as many as fit and raise throughput."""
        homes = Counter(slot.home for slot in slots)
        return cls(slots, packing=Packing(devices.room(slots), homes) if per_device == "auto" else None)

    def free(self) -> int:
        return len(self._open())

    def start(self, job: Job) -> str:
        slot = self._open()[-1]
        self._idle.remove(slot)
        worker = self._workers.get(slot.name) or self._spawn(slot, RunFolder(job.folder))
        worker.job, worker.waiting, worker.at = job, False, None
        worker.heard = worker.moved = self._awake.now()
        worker.send(self._order(slot, job))
        return slot.name

    def _open(self) -> list[Slot]:
        """Return the idle slots on which jobs may start now."""
        if self._packing is None:
            return self._idle
        busy = Counter(worker.slot.home for worker in self._workers.values() if worker.job)
        left = {slot.home: self._packing.allowed(slot.home) - busy[slot.home] for slot in self._idle}
        homes = {home: [slot for slot in self._idle if slot.home == home] for home in left}
        return [slot for home, slots in homes.items() for slot in slots[::-1][: max(0, left[home])][::-1]]

    def _order(self, slot: Slot, job: Job) -> protocol.Start:
        if self._packing is None:
            alone = self._shared[slot.home] == 1
            return protocol.Start(job=job, device=slot.device, threads=slot.threads, alone=alone)
        self._packing.began(slot.home, job.key, job.recipe)
        alone = self._packing.alone(slot.home)
        return protocol.Start(job=job, device=slot.device, threads=self._threads(slot), alone=alone)

    def _threads(self, slot: Slot) -> int:
        """Return the slot's share of the cores from the next epoch on."""
        return max(1, slot.threads // self._packing.allowed(slot.home)) if self._packing else slot.threads

    def next(self, timeout: float) -> Progress | Done | Failed | None:
        deadline = time.monotonic() + timeout
        while not self._ready:
            left = deadline - time.monotonic()
            for key, _ in self._selector.select(min(max(left, 0), MAX_POLL_INTERVAL_S / 2)):
                self._read(key.data)
            self._end_hung()
            if left <= 0:
                break
        return self._ready.popleft() if self._ready else None

    def positions(self) -> Mapping[str, Position]:
        return {one.job.key: one.at for one in self._workers.values() if one.job and one.at}

    def answer(self, key: str, keep: bool) -> None:
        for worker in self._workers.values():
            if worker.waiting and worker.job and worker.job.key == key:
                worker.waiting, worker.moved = False, self._awake.now()
                worker.send(protocol.Answer(keep=keep, threads=self._threads(worker.slot)))

    def close(self, *, kill: bool = False) -> None:
        """End the workers; without `kill`, busy ones first finish their epoch. Messages not yet read are lost."""
        while not kill and any(worker.job for worker in self._workers.values()):
            self._ready.clear()
            for worker in list(self._workers.values()):
                if worker.job and worker.waiting:
                    self.answer(worker.job.key, keep=False)
            self.next(1.0)
        for worker in list(self._workers.values()):
            self._discard(worker)
        self._selector.close()

    # ------------------------------------------------------------------------------- processes
    def _spawn(self, slot: Slot, folder: RunFolder) -> _Worker:
        ours, theirs = socket.socketpair()
        words = ["--fd", str(theirs.fileno()), "--parent", str(os.getpid())]
        with theirs, folder.log.open("ab") as log:
            process = subprocess.Popen(
                subprocesses.python("-m", "sweeper.worker", *words),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # only the coordinator handles Ctrl-C
                env=environment(slot),
            )
        worker = _Worker(slot, process, ours, protocol.LineReader(ours))
        self._workers[slot.name] = worker
        self._selector.register(ours, selectors.EVENT_READ, worker)
        return worker

    def _discard(self, worker: _Worker) -> None:
        """Kill the process and everything it started, and wait until it is gone."""
        del self._workers[worker.slot.name]
        self._selector.unregister(worker.channel)
        worker.channel.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.process.pid, signal.SIGKILL)
        worker.process.wait()

    # -------------------------------------------------------------------------------- messages
    def _read(self, worker: _Worker) -> None:
        lines = worker.lines.read()
        worker.heard = self._awake.now()
        if lines is None:
            self._died(worker)
            return
        for line in lines:
            message = protocol.REPORT.validate_json(line)
            if isinstance(message, protocol.Heartbeat):
                worker.at = message.at
            else:
                self._receive(worker, message)

    def _receive(self, worker: _Worker, message: Progress | Done | Failed) -> None:
        if not isinstance(message, Progress):
            self._ready.append(self._end(worker, message))
            return
        self._ready.append(message)
        worker.waiting = True
        if worker.job:
            self._watch.epoch(worker.job.recipe.train, message.epoch, worker.heard - worker.moved)
        if self._packing:
            self._packing.epoch(worker.slot.home, message.key, message.epoch)

    def _end(self, worker: _Worker, message: Done | Failed) -> Done | Failed:
        """Free the slot and keep its process if the job ended well. Return the message; a Failed also records whether
        the device was shared.
        """
        if self._packing:
            home, lacking = worker.slot.home, isinstance(message, Failed) and message.failure in ("oom", "died")
            if isinstance(message, Failed):
                message = message.model_copy(update={"shared_device": self._packing.crowded(home)})
            self._packing.ended(home, message.key, out_of_memory=lacking)
        worker.job = None
        self._idle.append(worker.slot)
        if isinstance(message, Failed):
            self._discard(worker)
        return message

    def _died(self, worker: _Worker) -> None:
        try:
            code = worker.process.wait(SHUTDOWN_GRACE_S)
        except subprocess.TimeoutExpired:
            code = 0
        if worker.job:
            self._fail(worker, worker.job, "died", _cause(code))
        else:
            self._discard(worker)

    def _end_hung(self) -> None:
        now = self._awake.now()
        for worker in [one for one in self._workers.values() if one.job and not one.waiting]:
            if worker.job and (text := self._trouble(worker, worker.job, now)):
                self._fail(worker, worker.job, "hung", text)

    def _trouble(self, worker: _Worker, job: Job, now: float) -> str | None:
        return self._watch.trouble(job.recipe.train, now - worker.heard, now - worker.moved)

    def _fail(self, worker: _Worker, job: Job, trouble: Failure, text: str) -> None:
        failed = Failed(key=job.key, failure=trouble, text=text, detail=tail(RunFolder(job.folder)))
        self._ready.append(self._end(worker, failed))


def environment(slot: Slot) -> dict[str, str]:
    """Return this process's environment with the slot's device and its share of the cores.

    Waiting threads must sleep: spinning ones, OpenMP's default, slow down everything else on the cores, above all
    other workers, up to tenfold. GPU memory grows in segments, so that batches of many sizes do not fragment it.
    """
    threads = dict.fromkeys(THREADS, str(slot.threads))
    ours = {"OMP_WAIT_POLICY": "PASSIVE"}
    if slot.device.startswith("cuda") and "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:  # the older name of the same
        ours["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
    return ours | subprocesses.environment() | {"PYTHONUNBUFFERED": "1"} | threads | dict(slot.env)


def _cause(code: int) -> str:
    if code >= 0:
        return f"the worker ended with exit code {code}"
    if code == -signal.SIGKILL:
        return "the worker was killed (signal 9), often because the host is out of memory"
    return f"the worker was killed by {signal.Signals(-code).name}"


def tail(folder: RunFolder) -> str:
    """Return the end of the run's log."""
    try:
        return folder.log.read_bytes()[-TAIL:].decode(errors="replace")
    except FileNotFoundError:
        return ""
