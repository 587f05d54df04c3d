"""How Python is started, here and by what is started in turn: without the current folder on its path.

Nobody else starts one. What lies in the current folder is the user's: a random.py there is no library.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

OWN = str(Path(__file__).resolve().parents[2])
LOOPBACK = ("127.0.0.1", "localhost", "::1")
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def python(*words: str) -> list[str]:
    """The command for this Python with `words`, such as -m and a module."""
    return [sys.executable, "-P", *words]


def environment() -> dict[str, str]:
    """Ours; but no Python with it finds modules in the current folder, nor asks a proxy for this machine."""
    path = os.pathsep.join(_elsewhere(os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    return {**os.environ, **_direct(), "PYTHONSAFEPATH": "1", "PYTHONPATH": path}


def settle() -> None:
    """The same for this process, which somebody else has started."""
    named = [*sys.path[:1], *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    unwanted = {"", *map(os.path.abspath, set(named) - set(_elsewhere(named)))}
    os.environ.update(environment())
    sys.path[:] = [entry for entry in sys.path if entry not in unwanted]
    if OWN not in sys.path:  # the current folder is that of an editable install
        sys.path.append(OWN)


def end_with_us(number: int) -> Callable[[], None] | None:
    """What a new process does first, so that the system sends it a signal when we end; nothing where none does."""
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
    """Those of a module path that are neither the current folder nor count from it."""
    try:
        here = Path.cwd().resolve()
    except FileNotFoundError:  # somebody has removed it
        here = Path()
    return (one for one in entries if Path(one).is_absolute() and Path(one).resolve() != here)


def _direct() -> dict[str, str]:
    """The variables by which this machine is asked without a proxy, where there is one."""
    names = {name.lower() for name, value in os.environ.items() if value}
    if not any(name.endswith("_proxy") for name in names - {"no_proxy"}):
        return {}
    given = ",".join(os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY"))
    hosts = [host.strip() for host in given.split(",") if host.strip()]
    text = "*" if "*" in hosts else ",".join(dict.fromkeys([*hosts, *LOOPBACK]))
    return {"no_proxy": text, "NO_PROXY": text}
