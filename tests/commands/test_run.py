"""What a sweep is assembled from: the options said again, the data's size, the preflight, the plan."""

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from sweeper.commands import plan, run
from sweeper.engine import preflight, prepare, presets
from sweeper.engine.options import Options
from sweeper.errors import DataError, EnvironmentFault, UserError
from sweeper.space import yaml_io
from sweeper.space.space import Space
from sweeper.store import records
from sweeper.store.paths import StudyFolder
from sweeper.study.planner import HoursPlan
from sweeper.system import devices
from sweeper.trial import SessionEnd
from tests.results.test_comparison import study as comparable
from tests.support.cli import lay_out, sweep
from trainers import throughput
from trainers.config import Recipe, TrainConfig
from trainers.data import cache
from trainers.data.table import Category, Row
from trainers.data_config import DataConfig

TINY = Recipe(
    data=DataConfig(root="nowhere", size=32),
    train=TrainConfig(backbone="test_resnet", image_size=32, batch_size=4, pretrained=True),
)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set and a search space."""
    return lay_out(tmp_path_factory.mktemp("ground"))


@pytest.fixture
def here(ground: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That folder as the current one; what runs leaves its traces elsewhere."""
    monkeypatch.chdir(ground)
    monkeypatch.setenv("SWEEP_TRAINER", "fake")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # else a process would look for GPUs
    return ground / "space.yaml"


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    """A sweep inside this process sets the device and the threads of the process."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


# ------------------------------------------------------------------------------------------ options
def test_the_command_that_resumes_says_every_option_again_and_is_quoted():
    options = Options(
        ("train.backbone=a b", "data.root=it's"), 4, 0.5, "cpu", 2, "new", inline=True, mlflow=False, then_best=True
    )
    words = shlex.split(options.command(Path("my space.yaml")))
    assert words[:4] == ["sweep", "run", "my space.yaml", "--set"]
    assert words[4:7] == ["train.backbone=a b", "--set", "data.root=it's"]
    assert words[7:13] == ["--trials", "4", "--hours", "0.5", "--devices", "cpu"]
    assert words[13:] == ["--new-study", "new", "--slots", "2", "--inline", "--no-mlflow", "--then-best"]


@pytest.mark.parametrize(("given", "word"), [(None, ""), (True, "--then-best"), (False, "--no-then-best")])
@pytest.mark.parametrize(
    ("budget", "alone"),
    [("{hours: 2}", True), ("{trials: 3}", False), ("{hours: 2, trials: 3}", False)],
)
def test_hours_alone_are_followed_by_the_retraining_unless_it_is_said(tmp_path, given, word, budget, alone):
    path = tmp_path / "space.yaml"
    path.write_text(f"data: {{layout: folder, root: d}}\nbudget: {budget}\ntrain: {{seed: {{int: [0, 9]}}}}\n")
    options = Options(then_best=given)
    assert options.retrains(yaml_io.read(path)) == (alone if given is None else given)
    assert options.command(path).removeprefix(f"sweep run {path}").strip() == word


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Options(ray="auto", inline=True), "--inline trains in this process"),
        (Options(ray="auto", devices="0,1"), "a cluster always uses all its GPUs"),
    ],
)
def test_a_cluster_is_not_had_together_with_this_process_or_chosen_gpus(here, given, said):
    with pytest.raises(UserError, match=said):
        run.run(run.session(here, given))
    assert Options(ray="host:1", devices="cpu").command(here).endswith("--devices cpu --ray host:1")


def test_options_become_values_of_the_file():
    options = Options(("train.epochs=2",), trials=4, hours=0.5, new_study="new")
    assert options.assignments == ["train.epochs=2", "budget.trials=4", "budget.hours=0.5", "study=new"]


# ------------------------------------------------------------------------------------------ weights
def test_weights_that_are_nowhere_are_said_before_the_images_are_looked_at(here):
    Path("empty").mkdir()
    for weights in ("{choice: [space.yaml, there/no.safetensors]}", "there/no.safetensors"):
        given = Options(("data.root=empty", f"train.weights={weights}", "train.pretrained=true"))
        with pytest.raises(EnvironmentFault, match=r"there are no weights at 'there/no\.safetensors'") as caught:
            prepare.prepare(here, given)
        assert "train.weights=PATH" in caught.value.help
    for known in ("train.pretrained=false", "train.weights=space.yaml"):  # not read, or there: the data come next
        with pytest.raises(DataError):
            prepare.prepare(here, Options(("data.root=empty", "train.weights=there", known)))
    with pytest.raises(DataError):  # without images weights are no matter
        prepare.prepare(here, Options(("data.root=nowhere", "train.weights=there", "train.pretrained=true")))


@pytest.mark.parametrize(
    ("train", "options", "expected"),
    [
        ("backbone: mobilenetv2_100, image_size: 128", Options(devices="cpu"), 4),
        ("backbone: {choice: [mobilenetv2_100, tf_efficientnet_lite0]}, image_size: 128", Options(devices="cpu"), 4),
        ("backbone: {choice: [mobilenetv2_100, resnet50]}", Options(devices="cpu"), 1),
        ("backbone: test_resnet", Options(devices="cpu"), 1),  # to try a study out, the same each time
        ("backbone: mobilenetv2_100, image_size: 448", Options(devices="cpu"), 1),  # 24 GB a worker
        ("backbone: mobilenetv2_100, image_size: {choice: [64, 224]}", Options(devices="cpu"), 3),  # 6.5
        ("backbone: mobilenetv2_100", Options(devices="cpu", slots=1), 1),
        ("backbone: mobilenetv2_100", Options(devices="cpu", slots=3), 3),
        ("backbone: mobilenetv2_100", Options(devices="cpu", slots="auto"), "auto"),
        ("backbone: mobilenetv2_100", Options(devices="cpu", inline=True), 1),
        ("backbone: mobilenetv2_100", Options(ray="auto"), 1),
    ],
)
def test_small_networks_share_a_cpu_as_far_as_cores_and_memory_go(tmp_path, monkeypatch, train, options, expected):
    monkeypatch.setattr(devices, "cores", lambda: 4)
    monkeypatch.setattr(devices, "room", lambda _: {"cpu": 20.0})
    (tmp_path / "space.yaml").write_text(f"data: {{root: x}}\nbudget: {{trials: 9}}\ntrain: {{{train}}}\n")
    space, homes = Space(yaml_io.read(tmp_path / "space.yaml"), ()), devices.slots("cpu")
    assert prepare.side_by_side(options, space, 9, homes) == expected
    assert prepare.side_by_side(options, space, 1, homes) == (
        1 if isinstance(expected, int) and options.slots is None else expected
    )


@pytest.mark.process
def test_a_study_that_goes_on_with_other_cores_says_so(here, monkeypatch, capsys):
    monkeypatch.setattr(devices, "room", lambda _: {"cpu": 20.0})
    monkeypatch.setattr(devices, "cores", lambda: 2)
    given = Options(("study=cores", "train.backbone=mobilenetv2_100"), trials=2, devices="cpu", mlflow=False)
    assert run.run(run.session(here, given)).exit_code == 0
    assert "devices: cpu, 2 trials on each" in capsys.readouterr().err
    monkeypatch.setattr(devices, "cores", lambda: 1)
    run.run(run.session(here, replace(given, trials=3, slots=2)))
    assert "trials side by side" not in capsys.readouterr().err
    assert run.run(run.session(here, replace(given, trials=4))).exit_code == 0
    said = "trials side by side: 1, as cores, memory and budget allow; before: 2"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("text", ["abc", "-1", "nan"])
def test_an_interval_of_checkpoints_that_is_no_number_is_refused_before_a_trial_exists(here, monkeypatch, text):
    monkeypatch.setenv("SWEEP_CHECKPOINT_INTERVAL", text)
    with pytest.raises(EnvironmentFault, match=f"SWEEP_CHECKPOINT_INTERVAL={text} is not a number of seconds"):
        run.run(run.session(here, Options(devices="cpu", mlflow=False)))
    assert not StudyFolder.named("question").study_file.exists()


def test_a_study_whose_images_are_gone_names_the_command_for_their_new_folder(here, tmp_path, monkeypatch):
    begun(tmp_path / "hours.yaml")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EnvironmentFault, match="study 'question' has lost its images") as caught:
        prepare.prepare(tmp_path / "hours.yaml", Options(devices="cpu"))
    assert "--set data.root=FOLDER" in caught.value.help
    moved = Options((f"data.root={here.parent / 'garments'}",), devices="cpu")
    assert prepare.prepare(tmp_path / "hours.yaml", moved).table.rows
    monkeypatch.chdir(here.parent)
    with pytest.raises(EnvironmentFault, match="has its images at garments now") as caught:
        prepare.prepare(tmp_path / "hours.yaml", Options(("data.root=before",), devices="cpu"))
    assert "--set data.root=garments" in caught.value.help
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="no such folder"):  # a typo
        prepare.prepare(tmp_path / "hours.yaml", Options(("data.root=garmets",), devices="cpu"))


# ------------------------------------------------------------------------------------------ hours alone
PLANNED = "study: question\ndata: {layout: challenge, root: garments, crop: box}\nbudget: {hours: 1}\npreset: fast\n"
OPEN = "train: {backbone: test_resnet, pretrained: false, loss: {name: focal, gamma: {uniform: [0, 2]}}}\n"


def begun(path: Path, slots: int = 1, *, pairs: bool = False) -> HoursPlan:
    """A study of hours alone that began with a plan, none of whose values are the preset's."""
    values = {"image_size": 64, "epochs": 3}
    seconds = {"trial_seconds": 600, "final_seconds": 800, "start_seconds": 5}
    known = {"hours": 1, "retrains": True, "slots": slots, "pairs": pairs, "values": values, "image_size": "64"}
    plan = HoursPlan(**known, epochs=3, **seconds)
    path.write_text(PLANNED + OPEN)
    spec = presets.replanned(presets.filled(yaml_io.read(path), lambda: "cpu"), values)
    folder = StudyFolder.named("question")
    folder.root.mkdir(parents=True)
    data = spec.data.model_copy(update={"size": 96, "cache": "raw"})
    space = Space(replace(spec, data=data), [])
    known = {"schema_version": 2, "study": "question", "identity": space.identity(), "plan": plan.document()}
    folder.study_file.write_text(json.dumps(known))
    return plan


@pytest.mark.parametrize(
    ("sets", "models"),
    [
        ((), 2),
        (("budget.hours=0.5",), 1),
        (("rules.ensemble=false",), 1),
        (("budget.trials=9",), 1),
    ],
)
def test_a_resumed_study_retrains_two_models_if_hours_and_rules_still_allow_it(here, tmp_path, sets, models):
    began = begun(tmp_path / "hours.yaml", pairs=True)
    again = prepare.prepare(tmp_path / "hours.yaml", Options(sets))
    assert began.models == 2
    assert again.plan
    assert again.plan.models == models


@pytest.mark.parametrize(
    ("sets", "trials"),
    [((), 4), (("budget.hours=3",), 16), (("budget.trials=9",), 5), (("search.confirm={top: 2, seeds: 1}",), 3)],
)
def test_a_resumed_study_keeps_its_plan_and_more_hours_are_more_trials(here, tmp_path, sets, trials):
    began = begun(tmp_path / "hours.yaml")
    again = prepare.prepare(tmp_path / "hours.yaml", Options(sets))
    assert again.plan
    assert (again.plan.trials, again.plan.values) == (trials, began.values)
    train = next(again.space.recipes()).train
    assert (train.image_size, train.epochs, train.batch_size) == (64, 3, 32)
    asked = json.loads(json.dumps(again.space.identity()))
    assert asked == json.loads(StudyFolder.named("question").study_file.read_text())["identity"]


def test_a_value_that_is_written_since_is_the_users(here, tmp_path):
    begun(tmp_path / "hours.yaml")
    again = prepare.prepare(tmp_path / "hours.yaml", Options(("train.image_size=96",)))
    assert next(again.space.recipes()).train.image_size == 96


def test_a_study_that_began_without_a_plan_gets_none(here, tmp_path, monkeypatch):
    begun(tmp_path / "hours.yaml")
    known = json.loads(StudyFolder.named("question").study_file.read_text())
    del known["plan"]
    StudyFolder.named("question").study_file.write_text(json.dumps(known))
    monkeypatch.delenv("SWEEP_TRAINER")
    again = prepare.prepare(tmp_path / "hours.yaml", Options(devices="cpu"), networks=False)
    assert again.plan is None


def test_a_study_without_time_for_a_search_gets_trials_once_their_number_is_given(here, tmp_path):
    begun(tmp_path / "hours.yaml")
    few = ("budget.hours=0.3",)
    assert prepare.prepare(tmp_path / "hours.yaml", Options(few)).spec.budget.trials == 0
    asked = Options(few, trials=5, then_best=True)
    assert prepare.prepare(tmp_path / "hours.yaml", asked).spec.budget.trials == 5


def test_a_grid_has_no_more_trials_than_configurations(here):
    grid = ("search.sampler=grid", "train.epochs={choice: [1, 2]}", "train.optimizer.lr={choice: [0.1, 0.2]}")
    assert prepare.prepare(here, Options(grid, trials=100)).spec.budget.trials == 4
    assert prepare.prepare(here, Options(grid, trials=3)).spec.budget.trials == 3


@pytest.mark.process
@pytest.mark.slow
def test_hours_too_few_are_refused_before_anything_starts(ground, tmp_path):
    folder = Path(shutil.copytree(ground, tmp_path / "ground"))
    (folder / "space.yaml").write_text(PLANNED + OPEN.replace("{backbone", "{image_size: 32, backbone"))
    ended = sweep(folder, "run", "space.yaml", "--hours", "0.0001", "--devices", "cpu", SWEEP_TRAINER="")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "error: 0.0001 h are too few for one training of 2 epochs at 32 px on train and val" in ended.stderr
    assert "space.yaml: budget.hours" in ended.stderr
    assert "--hours 0.0" in ended.stderr
    assert not (folder / "mlruns/studies").exists()


@pytest.mark.process
@pytest.mark.slow
def test_where_two_do_not_fit_two_cores_train_the_default_with_two_seeds(ground, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(ground, tmp_path / "ground"))
    monkeypatch.chdir(folder)
    begun(Path("space.yaml"), slots=2)
    shutil.copytree(tmp_path / "mlruns", folder / "mlruns")
    words = ("run", "space.yaml", "--devices", "cpu", "--no-mlflow", "--hours", "0.3", "--slots", "2")
    ended = sweep(folder, *words, SWEEP_TRAINER="")
    assert ended.returncode == 0, ended.stderr
    assert (
        "the first configuration is trained with the seeds 0 and 1000, and their logits are averaged" in ended.stderr
    )
    assert "training the first configuration with seed 1000 on train and val for 3 of 3 epochs" in ended.stderr
    assert len(list(folder.glob("mlruns/studies/question/finals/*"))) == 3
    (card,) = folder.glob("mlruns/studies/question/finals/*-ensemble/card.md")
    assert "never scored on val" in card.read_text()
    assert "of trial 0 with 2 seeds" in sweep(folder, "status", "question").stdout


@pytest.mark.process
@pytest.mark.slow
def test_where_two_do_not_fit_the_default_is_trained_on_all_images_and_more_hours_search(
    ground, tmp_path, monkeypatch
):
    folder = Path(shutil.copytree(ground, tmp_path / "ground"))
    monkeypatch.chdir(folder)
    begun(Path("space.yaml"))
    shutil.copytree(tmp_path / "mlruns", folder / "mlruns")
    words = ["run", "space.yaml", "--devices", "cpu", "--no-mlflow"]
    ended = sweep(folder, *words, "--hours", "0.3")
    assert ended.returncode == 0, ended.stderr
    assert "would do), so the default is trained once on train and val: 3 epochs at 64 px" in ended.stderr
    assert "training the first configuration on train and val for 3 of 3 epochs" in ended.stderr
    assert "submission: " in ended.stdout
    assert not list(folder.glob("mlruns/studies/question/trials/*"))
    (card,) = folder.glob("mlruns/studies/question/finals/*/card.md")
    assert "never scored on val" in card.read_text()
    said = sweep(folder, "status").stdout
    assert "question: complete" in said
    assert re.search(
        r"^hours    0.3 h: trials 0s, retraining \d+s, between trials \d+s, unused 1\dm", said, re.MULTILINE
    )
    again = sweep(folder, *words, "--hours", "0.3")
    assert "made before" in again.stdout
    best = ["best", "question", "--export", "submission", "--no-mlflow"]
    assert "made before" in sweep(folder, *best).stdout
    assert "had no time for a search" in sweep(folder, "best", "question").stdout
    assert "no trials to combine" in sweep(folder, *best, "--ensemble", "2").stderr
    assert "no trials: there was no time for a search" in sweep(folder, "leaderboard", "question").stderr
    more = sweep(folder, *words, "--hours", "1", "--trials", "2")
    assert more.returncode == 0, more.stderr
    assert len(list(folder.glob("mlruns/studies/question/trials/*"))) == 2
    after = sweep(folder, *best)
    assert "done: " in after.stdout, after.stderr
    assert "never scored on val" not in (folder / after.stdout.split("\n")[0][6:] / "card.md").read_text()


# ------------------------------------------------------------------------------------------ size
def test_the_size_of_the_cache_follows_the_space(here):
    assert prepare.prepare(here, Options()).spec.data.size == 64
    assert prepare.prepare(here, Options(("train.image_size=80",))).spec.data.size == 96


@pytest.mark.process
def test_a_resumed_study_keeps_the_size_it_began_with(here):
    run.run(run.session(here, Options(inline=True, mlflow=False, trials=1)))
    document = json.loads(StudyFolder.named("question").study_file.read_text())
    document["identity"]["data"]["size"] = 128
    StudyFolder.named("question").study_file.write_text(json.dumps(document))
    assert prepare.prepare(here, Options()).spec.data.size == 128


@pytest.mark.process
def test_every_trial_knows_the_size(here):
    run.run(run.session(here, Options(inline=True, mlflow=False, trials=1)))
    job = records.read_config(StudyFolder.named("question").trial(0))
    assert job
    assert job.recipe.data.size == 64


def test_images_are_kept_as_jpeg_where_that_is_written_and_what_that_costs_is_said(here, tmp_path, capsys):
    found = prepare.prepare(here, Options(("data.cache=jpeg",)))
    assert (found.spec.data.cache, found.spec.derived) == ("jpeg", ("data.size",))
    assert run.cached(here, Options(("data.cache=jpeg",))) == 48
    said = capsys.readouterr().err
    assert re.search(
        r"kept as JPEG \(raw pixels would take \d\.\d\d GB\): reading takes \d+\.\d\d ms of one core per image, or",
        said,
    )
    assert list((tmp_path / "mlruns" / "cache").glob("*-64-jpeg/images.jpegs"))


@pytest.mark.process
@pytest.mark.slow
def test_images_that_keep_their_shape_are_decoded_and_trained_on(here, tmp_path, monkeypatch):
    monkeypatch.delenv("SWEEP_TRAINER")
    tall = ("train.image_size={height: 64, width: 48}", "train.fit=pad", "train.epochs=1", "budget.trials=1")
    run.run(run.session(here, Options(tall, inline=True, mlflow=False)))
    job = records.read_config(StudyFolder.named("question").trial(0))
    assert job
    assert (job.recipe.data.size, job.recipe.train.input_size) == (96, (64, 48))
    assert list((tmp_path / "mlruns" / "cache").glob("*-96x72-pad/images.npy"))
    assert records.results(StudyFolder.named("question"))[0].value is not None
    assert prepare.prepare(here, Options(tall)).summary.notes == prepare.prepare(here, Options()).summary.notes


@pytest.mark.process
@pytest.mark.slow
def test_tall_images_that_are_squashed_have_a_note_with_the_line_to_write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for split, count in (("train", 12), ("val", 12)):
        for name in ("a", "b"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for number in range(count):
                picture = Image.new("RGB", (50, 100), (number, len(name + split), ord(name)))
                picture.save(tmp_path / "photos" / split / name / f"{number}.png")
    space = (
        "data: {layout: folder, root: photos}\nbudget: {trials: 1}\ntrain: {backbone: test_resnet, image_size: 96}\n"
    )
    (tmp_path / "space.yaml").write_text(space)
    given = Options(("train.pretrained=false",))
    (note,) = [one for one in prepare.prepare(Path("space.yaml"), given).summary.notes if "tall" in one]
    assert "such as 50 x 100" in note
    assert note.endswith("write train: {fit: pad, image_size: {height: 128, width: 64}}")
    for line in ("train.fit=pad", "train.image_size={height: 128, width: 64}"):
        kept = prepare.prepare(Path("space.yaml"), Options(("train.pretrained=false", line)))
        assert not [one for one in kept.summary.notes if "tall" in one]


def test_what_the_cache_holds_follows_and_is_of_one_kind_in_a_study(here, monkeypatch):
    assert prepare.prepare(here, Options()).spec.derived == ("data.size", "data.cache")
    assert prepare.prepare(here, Options(("data.cache=raw", "data.size=96"))).spec.derived == ()
    monkeypatch.setattr(cache, "SPARE", 2**60)  # a disk without room for raw pixels
    assert prepare.prepare(here, Options()).spec.data.cache == "jpeg"


@pytest.mark.process
def test_a_resumed_study_keeps_the_kind_it_began_with(here, monkeypatch):
    run.run(run.session(here, Options(inline=True, mlflow=False, trials=1)))
    monkeypatch.setattr(cache, "SPARE", 2**60)
    assert prepare.prepare(here, Options()).spec.data.cache == "raw"


def test_the_cache_is_built_before_a_study_exists(here, tmp_path, capsys):
    assert run.cached(here, Options()) == 48
    assert list((tmp_path / "mlruns" / "cache").glob("*-64/images.npy"))
    assert not (tmp_path / "mlruns" / "studies").exists()


# ------------------------------------------------------------------------------------------ class weights
@pytest.fixture
def unseen(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same with a class that no training image shows."""
    shutil.copytree(here.parent, tmp_path / "unseen")
    monkeypatch.chdir(tmp_path / "unseen")
    for labels in (Path("garments/split/train_attr.txt"), Path("garments/split/val_attr.txt")):
        labels.write_text("".join("0" + line[1:] + "\n" for line in labels.read_text().splitlines()))
    return Path("space.yaml")


WEIGHED = [
    "{name: focal, class_weights: effective_number}",
    "{name: focal, class_weights: {choice: [none, effective_number]}}",
    "{choice: [cross_entropy, {name: focal, class_weights: effective_number}]}",
    "{choice: [{name: focal, gamma: {uniform: [0, 5]}, class_weights: {choice: [none, effective_number]}}, dice]}",
]


@pytest.mark.parametrize("loss", WEIGHED)
def test_class_weights_that_a_trial_may_get_want_an_image_of_every_class(unseen, loss):
    unseen.write_text(f"{unseen.read_text()}  loss: {loss}\n")
    with pytest.raises(UserError) as caught:
        prepare.prepare(unseen, Options(), networks=False)
    assert "class_weights effective_number needs a training image of every class" in caught.value.what
    assert "no training image shows 'graphic' of texture (and" in caught.value.what
    assert caught.value.where == f"space.yaml:11:{9 + loss.index('effective_number')}"
    assert "class_weights: none" in caught.value.help


@pytest.mark.parametrize("loss", ["focal", "{name: focal, class_weights: none}", "logit_adjusted"])
def test_losses_without_class_weights_may_do_without_images_of_a_class(unseen, loss):
    unseen.write_text(f"{unseen.read_text()}  loss: {loss}\n")
    prepare.prepare(unseen, Options(), networks=False)


def test_class_weights_are_fine_where_every_class_has_an_image(here):
    table = prepare.prepare(here, Options(), networks=False).table
    sizes = [len(category.classes) for category in table.categories]
    rows = tuple(Row(str(k), "train", None, tuple(k % size for size in sizes), "") for k in range(max(sizes)))
    space = yaml_io.read(here, sets=["train.loss={name: focal, class_weights: inverse_frequency}"])
    prepare.refuse_unseen(space.train, replace(table, rows=rows))
    with pytest.raises(UserError, match=r"shows 'lattice' of texture\n"):
        prepare.refuse_unseen(space.train, replace(table, rows=rows[:-1]))


# ------------------------------------------------------------------------------------------ preflight
def faults(*codes: int) -> list[dict[str, object]]:
    return [
        {"where": "train.backbone", "what": f"fault {n}", "help": "x", "exit_code": c} for n, c in enumerate(codes)
    ]


def test_slips_in_the_recipe_alone_end_with_2():
    error = preflight.verdict(faults(2, 2), lambda name: f"space.yaml: {name}")
    assert (type(error), error.exit_code, error.where) == (UserError, 2, "space.yaml: train.backbone")
    assert "fault 0\nalso: fault 1" in str(error)


def test_what_the_machine_lacks_ends_with_3_and_names_everything():
    error = preflight.verdict(faults(2, 3))
    assert isinstance(error, DataError)
    assert [fault.what for fault in error.faults] == ["fault 0", "fault 1"]
    assert error.exit_code == 3


@pytest.mark.process
def test_a_check_that_says_nothing_sensible_is_a_fault_of_the_environment():
    with pytest.raises(EnvironmentFault, match="died with code 0"):
        preflight.ask("{}", module="this")


def test_what_passed_is_not_built_again_until_the_weights_change(tmp_path):
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"1")
    recipe = TINY.model_copy(update={"train": TINY.train.model_copy(update={"weights": str(weights)})})
    before = preflight.cache_key("request", [recipe])
    assert preflight.cache_key("request", [recipe]) == before
    weights.write_bytes(b"22")
    assert preflight.cache_key("request", [recipe]) != before


@pytest.mark.process
def test_a_backbone_that_can_be_built_is_remembered(tmp_path):
    good = TINY.model_copy(update={"train": TINY.train.model_copy(update={"pretrained": False})})
    preflight.preflight([good], [Category("sleeve", ("long", "short"))], cache=tmp_path)
    assert len(json.loads((tmp_path / "preflight.json").read_text())) == 1


# ------------------------------------------------------------------------------------------ plan
def test_a_measurement_tells_pace_memory_and_parameters(monkeypatch):
    monkeypatch.setattr(throughput, "SECONDS", 0.0)
    found = throughput.measure(TINY, [Category("sleeve", ("long", "short"))], "cpu")
    assert found["train_images_per_second"] > 0
    assert found["val_images_per_second"] > 0
    assert found["parameters"] > 100_000
    assert found["peak_memory_gb"] > 0


@pytest.mark.slow
@pytest.mark.process
def test_a_plan_tells_values_samples_and_costs_and_begins_nothing(ground):
    document = json.loads(sweep(ground, "plan", "space.yaml", "--set", "train.batch_size=8", "--json").stdout)
    assert document["schema_version"] == 1
    assert (document["study"], document["trials"], document["configurations"]) == ("question", 3, None)
    assert document["parameters"] == {"optimizer.lr": "loguniform [0.0001, 0.1]"}
    assert document["images"] == {"train": 30, "val": 12, "test": 6}
    (cost,) = document["costs"]
    assert cost["backbone"] == "test_resnet"
    trial = presets.TRIAL_S + 4 * cost["seconds_per_epoch"]
    assert 3 * trial / 3600 == pytest.approx(document["hours"], abs=1e-4)
    assert not (ground / "mlruns" / "studies").exists()


@pytest.mark.process
def test_the_samples_of_a_plan_are_the_first_trials_of_the_sweep(here):
    prepared = prepare.prepare(here, Options())
    samples = list(prepared.first_configurations(3))
    run.run(run.session(here, Options(inline=True, mlflow=False)))
    assert samples == [result.params for result in records.results(StudyFolder.named("question"))]


def test_a_plan_in_words_warns_that_later_trials_depend_on_results():
    cost = plan.Cost("test_resnet", 32, 16, 375_210, 320.0, 900.0, 0.75, 0.1)
    made = plan.Plan(
        study="question",
        source="space.yaml",
        trials=3,
        budget_hours=0.5,
        configurations=None,
        parameters={"optimizer.lr": "loguniform [0.0001, 0.1]"},
        samples=({"optimizer.lr": 0.00316},),
        images={"train": 30, "val": 12, "test": 6},
        cache_gb=0.01,
        cache_px=64,
        epochs=4,
        device="cpu",
        slots=1,
        costs=(cost,),
        hours=0.25,
        disk_gb=0.1,
    )
    assert "faster with another format" in plan.lines(replace(made, precision="faster with another format"))
    said = "\n".join(plan.lines(made))
    assert "study question: 3 trials, each of 4 epochs\nparameters (unlimited configurations)" in said
    assert "later trials depend on the results of earlier ones" in said
    assert "0: optimizer.lr=0.00316" in said
    assert "0.050 s/step" in said
    assert "time: at most 15m on 1 slot, less with pruning; the budget stops it after 0.5 h" in said
    closed = replace(made, trials=1, parameters={}, configurations=1, samples=({},), slots=2, budget_hours=None)
    first, second, third, *_, time, _ = plan.lines(closed)
    assert (first, second) == ("study question: 1 trial, each of 4 epochs", "no parameters: a single recipe")
    assert third.startswith("images: ")
    assert time == "time: at most 15m on 2 slots, less with pruning"
    longest = replace(made, parameters={"epochs": "choice [2, 4]"})
    assert next(plan.lines(longest)) == "study question: 3 trials, each of up to 4 epochs"
    assert "as many trials as fit, each of 1 epoch" in next(plan.lines(replace(made, trials=None, epochs=1)))


def test_nothing_is_said_of_a_study_whose_folder_is_gone(tmp_path, capsys):
    """The error that ended the sweep says it."""
    run.report_ending(StudyFolder(tmp_path / "gone"), "sweep run space.yaml", SessionEnd(3))
    assert capsys.readouterr() == ("", "")


def cost(pace, speedup):
    return plan.Cost("test_resnet", 32, 16, 375_210, pace, 900.0, 0.75, 0.1, bf16_speedup=speedup)


def test_a_plan_proposes_bf16_where_all_backbones_together_gain_a_fifth_of_their_time():
    line = "this CPU trains 1.6 times as fast with train: {precision: bf16} (measured over a few steps)"
    assert plan.format_proposal([cost(100, 1.64)]) == line
    assert plan.format_proposal([cost(10, 2.0), cost(100, 0.5)]).startswith("this CPU trains 1.6 times")
    assert plan.format_proposal([cost(100, 1.19)]) == ""
    assert plan.format_proposal([cost(100, 2.0), cost(100, 0.6)]) == ""


def test_a_plan_proposes_no_format_that_was_not_measured():
    assert plan.format_proposal([cost(100, None)]) == ""
    assert plan.format_proposal([cost(100, 3.0), cost(100, None)]) == ""


def test_the_closing_table_counts_the_trials_that_it_leaves_out(capsys):
    folder = comparable("five", (0.5, 0.9, 0.8, 0.7, 0.6))
    run.report_ending(folder, "sweep run space.yaml", SessionEnd(0))
    assert "\n2 more trials: sweep leaderboard five\n" in capsys.readouterr().err
