"""Strangers' files run no code, secrets stay in the environment, what is handed on is silent about this machine."""

import os
import pickle
import re
import socket
import stat
import time
import tokenize
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.cli import SPACE, lay_out, sweep
from tests.support.processes import Lab
from trainers.support.checkpoint import load_state, load_weights
from trainers.support.checksummed import load_array
from trainers.support.errors import EnvironmentFault

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for folder in ("sweeper", "trainers") for path in (ROOT / folder).rglob("*.py"))
FORBIDDEN = re.compile(
    r"(import|from) +(pickle|cPickle|dill|joblib|marshal|shelve|cloudpickle)\b|\bpickle\.loads?\("
    r"|yaml\.(load|unsafe_load|full_load)\(|YAML\(typ=.unsafe|(?<![\w.])(eval|exec)\(|shell\s*=\s*True"
    r"|os\.(system|popen)\(|allow_pickle\s*=\s*True|(read|to)_pickle|trust_remote_code"
)
CANARIES = {
    "HF_TOKEN": "hf_canaryOne123456",
    "AWS_SECRET_ACCESS_KEY": "canaryTwo/abcdef+123",
    "AWS_SESSION_TOKEN": "canaryThree98765",
    "MLFLOW_TRACKING_PASSWORD": "canaryFour4444",
    "WANDB_API_KEY": "canaryFive55555",
}


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


# --------------------------------------------------------------------------------------------- code
@pytest.mark.fault("X-code")
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_source_reads_what_could_run_code_or_asks_a_shell(path, case):
    assert not FORBIDDEN.findall(path.read_text(encoding="utf-8"))
    assert not re.search(r"weights_only\s*=\s*False", code(path))


def code(path: Path) -> str:
    """A source without its texts: one of ours tells a person what he may run himself."""
    with path.open("rb") as file:
        return "".join(token.string for token in tokenize.tokenize(file.readline) if token.type != tokenize.STRING)


@pytest.mark.fault("X-code")
@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin", "w.safetensors", "last.ckpt", "val_logits.npy"])
@pytest.mark.parametrize("how", ["pickle", "torch", "numpy"])
def test_an_evil_file_is_refused_and_does_nothing(tmp_path, case, name, how):
    path, mark = tmp_path / name, tmp_path / "mark"
    if how == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": Evil(mark)}))
    elif how == "torch":
        torch.save({"state_dict": Evil(mark)}, path)
    else:
        with path.open("wb") as file:
            np.save(file, np.array([Evil(mark)], dtype=object), allow_pickle=True)
    if name == "last.ckpt":
        assert load_state(path) is None
    else:
        with pytest.raises(EnvironmentFault):
            (load_array if name.endswith("npy") else load_weights)(path)
    assert not mark.exists()


@pytest.mark.fault("X-code")
@pytest.mark.many
def test_evil_weights_of_a_recipe_are_refused_before_a_trial_exists(tmp_path, case):
    torch.save(Evil(tmp_path / "mark"), tmp_path / "w.pth")
    lay_out(tmp_path, SPACE.replace("pretrained: false", "weights: w.pth"))
    ended = sweep(tmp_path, "run", "space.yaml", SWEEP_TRAINER="")
    assert ended.returncode == 3, ended.stderr
    assert "cannot read weights" in ended.stderr
    assert not (tmp_path / "mark").exists()
    assert not list((tmp_path / "mlruns/studies").glob("*/trials/*"))


@pytest.mark.fault("X-code")
@pytest.mark.many
@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (("backbone: test_resnet", "backbone: ../../x"), 2, "timm has no model"),
        (("backbone: test_resnet", "backbone: 'hf-hub:evil/repo'"), 2, "timm has no model"),
        (("backbone: test_resnet", "backbone: 'local-dir:/tmp/x'"), 2, "timm has no model"),
        (("pretrained: false", "weights: /etc/passwd"), 3, "cannot read weights"),
        (("study: question", "study: ../x"), 2, "cannot be a name"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path, case, change, code, said):
    lay_out(tmp_path, SPACE.replace(*change))
    ended = sweep(tmp_path, "run", "space.yaml", SWEEP_TRAINER="")
    assert (ended.returncode, said in ended.stderr) == (code, True), ended.stderr


# ------------------------------------------------------------------------------------------ secrets
@pytest.mark.fault("Z1")
@pytest.mark.many
def test_secrets_of_the_environment_are_in_no_file_and_no_output(lab: Lab, case):
    """With a worker that fails with a traceback, a report, a final, and a tracking address with a password in it."""
    space = (lab.root / "space.yaml").read_text().replace("test_resnet", "{choice: [test_resnet, broken.error]}")
    (lab.root / "space.yaml").write_text(space.replace("search: ", "search: ").replace("trials: 8", "trials: 4"))
    words = {"SWEEP_FAKE_SECONDS": "0", **CANARIES}
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    closed = f"http://someone:canarySix66666@127.0.0.1:{port}/?token=canarySeven777"
    said = [lab.run(**words), lab.run("--trials", "5", MLFLOW_TRACKING_URI=closed, **words)]
    said += [lab.sweep(*command, **words) for command in (["best", "--export", "submission"], ["report"], ["status"])]
    said += [lab.sweep("doctor", "--json", MLFLOW_TRACKING_URI=closed, **words)]
    assert any(one["state"] == "FAILED" for one in lab.results().values())
    secrets = [*CANARIES.values(), "canarySix66666", "canarySeven777"]
    for ended in said:
        assert not [one for one in secrets if one in ended.out + ended.err], ended.err
    for path in (p for p in lab.home.rglob("*") if p.is_file()):
        content = path.read_bytes()
        assert not [one for one in secrets if one.encode() in content], path


LOGIN = "https://someone:canarySix66666@host/w.safetensors"


@pytest.mark.process
@pytest.mark.fault("Z1")
@pytest.mark.parametrize(
    "assignment",
    [
        f"train.weights={LOGIN}",
        pytest.param(f"train.wieghts={LOGIN}", marks=pytest.mark.many),
        pytest.param(f"{LOGIN}=1", marks=pytest.mark.many),
        pytest.param(f"train.epochs=2 # {LOGIN}", marks=pytest.mark.many),
        pytest.param(f"train.weights=w/{CANARIES['HF_TOKEN']}.safetensors", marks=pytest.mark.many),
        pytest.param("train.weights='https://host/w?api_key=canarySix66666'", marks=pytest.mark.many),
    ],
)
def test_a_secret_given_with_set_is_refused_and_shown_nowhere(lab: Lab, case, assignment):
    ended = lab.run("--no-mlflow", "--set", assignment, HF_TOKEN=CANARIES["HF_TOKEN"])
    assert ended.code == 2, ended.err
    assert "a login, a key or a secret from the environment" in ended.err
    assert "canary" not in ended.out + ended.err
    assert not lab.study.exists()


@pytest.mark.fault("Z1")
@pytest.mark.many
def test_a_secret_in_the_file_itself_is_refused_with_its_place(lab: Lab, case):
    space = lab.root / "space.yaml"
    space.write_text(space.read_text().replace("pretrained: false", f"weights: '{LOGIN}'"))
    ended = lab.run("--no-mlflow")
    assert ended.code == 2, ended.err
    assert "space.yaml:7:12" in ended.err
    assert "canary" not in ended.out + ended.err
    assert not lab.study.exists()


@pytest.mark.fault("Z2")
@pytest.mark.many
def test_the_pages_are_served_to_this_machine_alone(lab: Lab, case):
    lab.run(SWEEP_FAKE_SECONDS="0")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    running = lab.start("ui", "--port", str(port))
    try:
        addresses: set[str] = set()
        deadline = time.monotonic() + 60
        while not addresses and time.monotonic() < deadline:
            time.sleep(0.1)
            addresses = listening(port)
        assert addresses == {"0100007F"}
    finally:
        running.kill(2)
        running.end()


def listening(port: int) -> set[str]:
    """The addresses, as the kernel writes them, on which somebody listens to the port."""
    lines = [
        *Path("/proc/net/tcp").read_text().splitlines()[1:],
        *Path("/proc/net/tcp6").read_text().splitlines()[1:],
    ]
    fields = [line.split() for line in lines]
    return {one[1].split(":")[0] for one in fields if one[3] == "0A" and one[1].endswith(f":{port:04X}")}


# ----------------------------------------------------------------------------------- what is handed on
@pytest.mark.process
@pytest.mark.fault("X-handed-on")
def test_a_submission_says_nothing_of_this_machine(lab: Lab, case):
    """With a data set and weights that are given by whole paths; the study's own files keep them."""
    (lab.root / "mine").mkdir()
    (lab.root / "mine" / "w.safetensors").write_bytes(b"weights")
    whole = f"data.root={lab.root / 'garments'}", f"train.weights={lab.root / 'mine' / 'w.safetensors'}"
    sets = [word for one in (*whole, "train.pretrained=true") for word in ("--set", one)]
    lab.run("--no-mlflow", *sets, SWEEP_FAKE_SECONDS="0")
    assert lab.sweep("best", "--export", "submission", "--no-mlflow").code == 0
    (final,) = lab.study.glob("finals/*")
    names = (str(lab.root), lab.root.name, str(Path.home()), os.uname().nodename)
    assert str(lab.root) in (final / "config.json").read_text()
    assert "root: garments" in (final / "card.md").read_text()
    with zipfile.ZipFile(final / "submission.zip") as archive:
        (entry,) = archive.infolist()
        assert (entry.filename, entry.date_time, entry.extra, entry.comment) == (
            "prediction.txt", (1980, 1, 1, 0, 0, 0), b"", b"",
        )  # fmt: skip
        assert stat.S_IMODE(entry.external_attr >> 16) == 0o644
        assert re.fullmatch(r"([0-9 ]+\n)+", archive.read(entry).decode("ascii"))
    for name in ("submission.zip", "prediction.txt", "card.md", "model.safetensors"):
        content = (final / name).read_bytes()
        assert not [one for one in names if one.encode() in content], name
