"""Starts Python, here and in child processes, without the current folder on its path.

All Python processes are started through this module. Files in the current folder are the user's: a random.py there
must not replace a library.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

OWN = str(Path(__file__).resolve().parents[2])
LOOPBACK = ("127.0.0.1", "localhost", "::1")
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def python(*words: str) -> list[str]:
    """Return the command that runs this Python with `words`, such as -m and a module."""
    return [sys.executable, "-P", *words]


def environment() -> dict[str, str]:
    """Return this process's environment, changed so that Python finds no modules in the current folder and contacts
    this machine without a proxy.
    """
    path = os.pathsep.join(_elsewhere(os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    return {**os.environ, **_direct(), "PYTHONSAFEPATH": "1", "PYTHONPATH": path}


def settle() -> None:
    """Do the same for this process, which was not started through this module. Exit if its folder was deleted."""
    try:
        Path.cwd()
    except FileNotFoundError:
        sys.stderr.write("error: the current folder was deleted\nhelp: cd to another one\n")
        sys.exit(3)
    named = [*sys.path[:1], *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    unwanted = {"", *map(os.path.abspath, set(named) - set(_elsewhere(named)))}
    os.environ.update(environment())
    sys.path[:] = [entry for entry in sys.path if entry not in unwanted]
    if OWN not in sys.path:  # the current folder is the root of an editable install
        sys.path.append(OWN)


def end_with_us(number: int) -> Callable[[], None] | None:
    """Return a `preexec_fn` by which Linux sends a new process signal `number` when this one ends; else None."""
    if sys.platform != "linux":
        return None
    import ctypes

    control, parent = ctypes.CDLL(None).prctl, os.getpid()

    def bind() -> None:
        control(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:
            os._exit(1)

    return bind


def _elsewhere(entries: Iterable[str]) -> Iterator[str]:
    """Return the entries of a module path that are neither the current folder nor relative to it."""
    try:
        here = Path.cwd().resolve()
    except FileNotFoundError:  # it was removed
        here = Path()
    return (one for one in entries if Path(one).is_absolute() and Path(one).resolve() != here)


def _direct() -> dict[str, str]:
    """Return the variables that exempt this machine from the proxy, if there is one."""
    names = {name.lower() for name, value in os.environ.items() if value}
    if not any(name.endswith("_proxy") for name in names - {"no_proxy"}):
        return {}
    given = ",".join(os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY"))
    hosts = [host.strip() for host in given.split(",") if host.strip()]
    text = "*" if "*" in hosts else ",".join(dict.fromkeys([*hosts, *LOOPBACK]))
    return {"no_proxy": text, "NO_PROXY": text}
