"""The connection to MLflow: the only module that uses its library."""

import os
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from itertools import zip_longest
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sweeper.errors import EnvironmentFault
from sweeper.store import paths
from sweeper.store.paths import StudyFolder
from sweeper.text import redacted
from sweeper.tracking import content, local_store, sync_state
from sweeper.tracking.content import Point
from sweeper.tracking.reconcile import Refused
from sweeper.tracking.reconcile import Server as Remote
from sweeper.tracking.sync_state import StudySyncState

MODEL = "model"  # folder among a run's files in MLflow
WEIGHTS = "sweep.sha256"  # tag of a registered version: the checksum of its weights
EXAMPLE = (  # a grey PNG
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAGUlEQVR42mOsKclgIAUwMZAIRjWMahg6GgBPMAF4AKE10wAAAABJRU5ErkJggg=="
)
METRICS, TAGS = 800, 100  # limits per call; MLflow takes 1000 items in total


FINAL_CODES = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE")


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return redacted(lines[0])[:160]


def uri() -> str:
    """Return the address of MLflow: MLFLOW_TRACKING_URI, or the SQLite file under mlruns/."""
    return os.environ.get("MLFLOW_TRACKING_URI") or local_store.address(paths.database())


def link(study: StudyFolder, base: str) -> str | None:
    """Return the address of this study's leaderboard under `base`, or None while MLflow does not have the study."""
    sync = sync_state.read(study.sync_state, StudySyncState)
    return content.address(base, sync.experiment, sync.id) if sync and sync.run else None


def save_model(folder: Path, data: Path, loader: str, answers: Mapping[str, bool]) -> None:
    """Write an MLflow model into the new folder `folder`: the module `loader` loads the content of `data`.

    `answers` maps each category to True if it has several answers. The model's input is the content of image files.
    """
    local_store.hush()
    from mlflow import pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    def columns(name: str, multi: bool) -> Iterator[ColSpec]:
        for column, kind in ((name, DataType.string), (f"{name} probability", DataType.double)):
            yield ColSpec(Array(kind) if multi else kind, column)

    said = [column for name, multi in answers.items() for column in columns(name, multi)]
    signature = ModelSignature(Schema([ColSpec(DataType.binary, "image")]), Schema(said))
    pyfunc.save_model(
        folder,
        loader_module=loader,
        data_path=data,
        signature=signature,
        input_example={"image": [b64decode(EXAMPLE)]},
        pip_requirements=[f"vision-sweep=={metadata.version('vision-sweep')}"],
    )


def registered(name: str, checksum: str) -> str | None:
    """Return the address of the newest version of the model `name` with this checksum of weights, or None."""
    local_store.hush()
    from mlflow import MlflowClient

    with _taking_models():
        versions = MlflowClient(tracking_uri=uri()).search_model_versions(f"name = '{name}'")
    same = [int(one.version) for one in versions if one.tags.get(WEIGHTS) == checksum]
    return f"models:/{name}/{max(same)}" if same else None


def register(name: str, run: str, folder: Path, words: str, checksum: str) -> str:
    """Upload the MLflow model in `folder` to a run, as the next version of the model `name`, and return its address.

    `checksum` is of its weights. Raises EnvironmentFault if MLflow does not accept it.
    """
    local_store.hush()
    from mlflow import MlflowClient

    server = MlflowClient(tracking_uri=uri())
    with _taking_models():
        server.log_artifacts(run, str(folder), MODEL)
        if not server.search_registered_models(f"name = '{name}'"):
            server.create_registered_model(name, description=f"models of the study {name}")
        source, tags = f"runs:/{run}/{MODEL}", {WEIGHTS: checksum}
        made = server.create_model_version(name, source, run, tags=tags, description=words)
    return f"models:/{name}/{made.version}"


@contextmanager
def _taking_models() -> Iterator[None]:
    """Turn errors of MLflow's registry into EnvironmentFault, with a way to do without it."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        help = "--output FOLDER writes the MLflow model without registering it"
        where = redacted(uri())
        raise EnvironmentFault(f"MLflow did not accept the model: {_line(error)}", where=where, help=help) from error


class Server(Remote):
    """MLflow's client behind our interface; `note` is called once if it takes metrics but no files."""

    def __init__(self, note: Callable[[str], None]) -> None:
        local_store.hush()
        from mlflow import MlflowClient

        self.uri, self._note, self._files = uri(), note, True
        self._remote = self.uri.startswith(("http://", "https://"))  # then the server decides where files go
        with _refusals():
            if self.uri == local_store.address(paths.database()):
                if trouble := local_store.trouble(paths.database()):
                    raise Refused(trouble[0])
                local_store.create(paths.database(), lambda address: MlflowClient(tracking_uri=address))
            self._client = MlflowClient(tracking_uri=self.uri)

    def experiment(self, name: str) -> str:
        """Return the id of the experiment `name`, created or restored if necessary."""
        with _refusals():
            found = self._client.get_experiment_by_name(name)
            place = None if self._remote else (paths.artifacts() / content.key(name)).as_uri()
            ident = found.experiment_id if found else self._client.create_experiment(name, artifact_location=place)
            if found and found.lifecycle_stage == "deleted":
                self._client.restore_experiment(ident)
            if found:
                self._keep_files_here(found.artifact_location)
            return str(ident)

    def view(self, experiment: str, key: str, state: str) -> None:
        """Store a saved table view of the experiment under `key`, which is part of its address."""
        with _refusals():
            self._client.set_experiment_tag(experiment, f"mlflow.sharedViewState.{key}", state)

    def home(self, run: str) -> str | None:
        """Return the id of a run's experiment, or None if there is no such run.

        If the experiment or the run was deleted, it is restored with the runs below it: if it were created again,
        everything would exist twice once somebody restores it.
        """
        from mlflow.entities import ViewType

        try:
            with _refusals():
                ident = self._client.get_run(run).info.experiment_id
                found = self._client.get_experiment(ident)
                self._keep_files_here(found.artifact_location)
                if found.lifecycle_stage == "deleted":
                    self._client.restore_experiment(ident)
                if self._client.get_run(run).info.lifecycle_stage == "deleted":
                    self._client.restore_run(run)
                    while lost := self._client.search_runs([ident], content.children(run), ViewType.DELETED_ONLY):
                        for one in lost:
                            self._client.restore_run(one.info.run_id)
                return str(ident)
        except Refused:
            return None

    def run(self, experiment: str, name: str, tags: Mapping[str, str], start: int | None, new: bool) -> str:
        """Return the id of the run with this `sweep.id`, created if it does not exist, and set its tags.

        It exists if the answer of an earlier attempt got lost, or if it belongs to a study's run that is gone. If the
        run is `new`, there is no search.
        """
        sought = f"tags.`sweep.id` = '{tags['sweep.id']}'"
        with _refusals():
            found = [] if new else self._client.search_runs([experiment], sought, max_results=1)
            if not found:
                return str(self._client.create_run(experiment, start, dict(tags), run_name=name).info.run_id)
            run = str(found[0].info.run_id)
        self.log(run, (), {}, tags)
        return run

    def log(self, run: str, points: Sequence[Point], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Send everything in as few calls as MLflow allows; data that it already has is not duplicated."""
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(name, value, p.time, p.step) for p in points for name, value in p.figures.items()]
        named = [Param(*pair) for pair in params.items()], [RunTag(*pair) for pair in tags.items()]
        calls = zip_longest(_parts(metrics, METRICS), *(_parts(each, TAGS) for each in named), fillvalue=())
        with _refusals():
            for call in calls:
                self._client.log_batch(run, *call, synchronous=True)

    def status(self, run: str, status: str, end: int | None) -> None:
        """Set a run's status; any status except RUNNING ends the run, at `end` (ms) or now."""
        with _refusals():
            if status == "RUNNING":
                self._client.update_run(run, status=status)
            else:
                self._client.set_terminated(run, status, end)

    def start(self, run: str) -> int:
        """Return the start time of a run (ms)."""
        with _refusals():
            return int(self._client.get_run(run).info.start_time)

    def text(self, run: str, name: str, text: str) -> None:
        self._file(run, lambda: self._client.log_text(run, text, name))

    def file(self, run: str, path: Path) -> None:
        self._file(run, lambda: self._client.log_artifact(run, str(path)))

    def _keep_files_here(self, place: str) -> None:
        """Send no more files if our own database stores them in another mlruns, as ours was moved."""
        old, ours = Path(unquote(urlsplit(place).path)).parent, paths.artifacts()
        own = self.uri == local_store.address(paths.database()) and old.name == ours.name
        if own and self._files and old.resolve() != ours.resolve():
            self._files = False
            again = f"delete {paths.database()} and {ours}, and the next `sweep run` sends everything again"
            self._note(f"mlruns was moved, but MLflow stores files at {old}, so only metrics are sent; {again}")

    def _file(self, run: str, send: Callable[[], None]) -> None:
        """Send a file. If only files fail, as with an artifact store on another machine, send no more of them."""
        if not self._files:
            return
        try:
            send()
        except Exception as error:  # noqa: BLE001  (if metrics fail too, that is raised)
            with _refusals():
                self._client.get_run(run)
            self._files = False
            self._note(f"MLflow accepts no files ({_line(error)}); metrics are still sent")


def _parts(things: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(things), size):
        yield list(things[start : start + size])


@contextmanager
def _refusals() -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code in FINAL_CODES:
            raise Refused(str(error)) from error
        raise
