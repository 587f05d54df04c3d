"""Shell completion: studies, trials, models, and keys of a search space."""

from collections.abc import Iterator

from sweeper.space import hints
from sweeper.store import records, studies


def proposals(kind: str, typed: str) -> list[str]:
    """Return the names of a kind (study, trial, model, key) that start with `typed`, the latest study first."""
    found = {"study": _studies, "trial": _trials, "model": _trials if "/" in typed else _studies, "key": _keys}[kind]
    return [name for name in found() if name.startswith(typed)]


def _studies() -> Iterator[str]:
    return (study.name for study in studies.studies())


def _trials() -> Iterator[str]:
    return (f"{study.name}/{one.number}" for study in studies.studies() for one in records.results(study))


def _keys() -> Iterator[str]:
    return (f"{path}=" for path in hints.paths())
