"""Queries a module of ours in a separate process, which may load torch, fill a GPU's memory or crash."""

import json
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from sweeper.errors import EnvironmentFault
from sweeper.system import subprocesses


def ask(
    *words: str,
    what: str,
    request: object = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    quiet: bool = False,
) -> Any:
    """Run Python with `words`, send it `request` as JSON on stdin, and return its answer, a list or an object: the
    last line of its stdout.

    The process does not receive Ctrl-C, and it ends with this one, however that ends. With `quiet`, its stderr is
    discarded. Raises EnvironmentFault, which names the process `what`, if it ends without an answer or times out.
    """
    try:
        ended = subprocess.run(
            subprocesses.python(*words),
            input=json.dumps(request),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else None,
            text=True,
            env=env or subprocesses.environment(),
            timeout=timeout,
            process_group=0,
            preexec_fn=subprocesses.end_with_us(signal.SIGKILL),
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentFault(f"{what} did not answer within {timeout:g} s") from None
    answer = _parsed(ended.stdout.strip().rpartition("\n")[2])
    if not isinstance(answer, list | dict):
        help_ = "see its messages above; it may have run out of memory"
        raise EnvironmentFault(f"{what} died with code {ended.returncode}", help=help_)
    return answer


def stream(*words: str, what: str, request: object, env: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Do the same for an answer of many lines, yielding each object as it arrives; closing the iterator ends the
    process.

    Raises EnvironmentFault if the process dies.
    """
    with subprocess.Popen(
        subprocesses.python(*words),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=env,
        process_group=0,
        preexec_fn=subprocesses.end_with_us(signal.SIGKILL),
    ) as running:
        if running.stdin is None or running.stdout is None:
            raise RuntimeError("a process without pipes")
        try:
            with suppress(BrokenPipeError), running.stdin:
                json.dump(request, running.stdin)
            for line in running.stdout:
                if isinstance(found := _parsed(line), dict):
                    yield found
        except BaseException:
            running.kill()
            raise
    if running.returncode:
        help_ = "see its messages above; it may have run out of memory"
        raise EnvironmentFault(f"{what} died with code {running.returncode}", help=help_)


def _parsed(line: str) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None
