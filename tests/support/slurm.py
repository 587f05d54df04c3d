"""A Slurm cluster of one node on this machine, with a munge of its own: nothing outside its folder is touched."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
MISSING = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
CONFIG = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge.socket,cred_expire=10
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
KillWait=30
MinJobAge=3600
NodeName={host} NodeAddr=127.0.0.1 CPUs=1 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass
class Cluster:
    """One node with one core, so that a second job waits."""

    folder: Path
    ended: dict[int, dict[str, str]] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        return os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": f"{os.environ['PATH']}:/usr/sbin"}

    def call(self, *words: str, cwd: Path | None = None) -> str:
        """What a program of Slurm's prints."""
        found = subprocess.run(words, cwd=cwd, env=self.env, capture_output=True, text=True, timeout=60)
        assert found.returncode == 0, f"{words}: {found.stderr}"
        return found.stdout

    def submit(self, cwd: Path, *words: str) -> int:
        """The number of a new job."""
        return int(self.call("sbatch", "--parsable", *words, cwd=cwd))

    def job(self, number: int) -> dict[str, str]:
        """What Slurm has on record of a job: JobState, Reason, Restarts, ExitCode and more."""
        words = self.call("scontrol", "--oneliner", "show", "job", str(number)).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, until: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < deadline, self.call("scontrol", "show", "job")
            time.sleep(0.5)


@contextmanager
def running() -> Iterator[Cluster]:
    """The cluster; afterwards nothing of it runs, and its folder is gone."""
    folder = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))
    cluster, processes = Cluster(folder), []
    host, user = socket.gethostname().split(".")[0], subprocess.check_output(["id", "-un"], text=True).strip()
    (folder / "slurm.conf").write_text(CONFIG.format(host=host, user=user, folder=folder, ports=_ports()))
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    own = ("socket", "key-file", "pid-file", "seed-file")
    munge = [f"--{name}={folder}/munge.{name.split('-')[0]}" for name in own]
    try:
        for words in (
            ["munged", "--foreground", "--force", f"--log-file={folder}/munge.log", *munge],
            ["slurmctld", "-D", "-i"],
            ["slurmd", "-D", "-N", host],
        ):
            with (folder / f"{words[0]}.out").open("wb") as out:
                processes.append(subprocess.Popen(words, env=cluster.env, stdout=out, stderr=out))
            time.sleep(1)
        cluster.wait(lambda: "idle" in cluster.call("sinfo", "--noheader", "--format=%t"), 60)
        yield cluster
    finally:
        for process in reversed(processes):
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _ports() -> list[int]:
    with socket.socket() as one, socket.socket() as two:
        for each in (one, two):
            each.bind(("127.0.0.1", 0))
        return [one.getsockname()[1], two.getsockname()[1]]
