"""`sweep init`: from a folder to a search space that runs, or a sentence about what is missing."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from sweeper.commands import init
from sweeper.commands.init import Wishes
from sweeper.engine import presets
from sweeper.engine.options import Options
from sweeper.engine.presets import Pace
from sweeper.errors import EnvironmentFault, UserError
from sweeper.space import starter, yaml_io
from sweeper.space.space import Space
from tests.support.cli import sweep
from tests.support.photos import draw_photos

OFFLINE = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_ETAG_TIMEOUT": "1"}


def photos(root: Path) -> Path:
    """Class folders of small pictures."""
    for k, (name, colour) in enumerate([("red", (220, 30, 30)), ("green", (30, 200, 40))]):
        (root / name).mkdir(parents=True)
        for n in range(24):
            Image.new("RGB", (40, 40), tuple(c + n - k for c in colour)).save(root / name / f"{n}.png")
    return root


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Class folders, weights of a tiny network, and what `sweep init` wrote and said; not to be changed."""
    import timm
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("written")
    photos(folder / "photos")
    (folder / "weights/test_resnet").mkdir(parents=True)
    save_file(timm.create_model("test_resnet").state_dict(), folder / "weights/test_resnet/model.safetensors")
    described = {"architecture": "test_resnet", "pretrained_cfg": {"mean": [0.1] * 3, "std": [0.2] * 3}}
    (folder / "weights/test_resnet/config.json").write_text(json.dumps(described))
    (folder / "weights/no_name_of_timms.safetensors").write_bytes(b"")
    ended = sweep(folder, "init", "photos", "--weights", "weights", "--hours", "0.05", "--devices", "cpu")
    assert ended.returncode == 0, ended.stderr
    return folder, ended.stdout


@pytest.fixture
def here(written: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of that folder."""
    return Path(shutil.copytree(written[0], tmp_path / "here"))


# ------------------------------------------------------------------------------------- what it writes
@pytest.mark.process
@pytest.mark.slow
def test_it_names_the_file_and_the_next_command(written):
    _, said = written
    assert "written: photos.yaml" in said
    assert "next:    sweep run photos.yaml" in said
    assert "test_resnet at " in said


@pytest.mark.slow
def test_the_file_says_what_was_found_and_chosen(written):
    folder, _ = written
    text = (folder / "photos.yaml").read_text()
    assert text.splitlines()[0] == "# yaml-language-server: $schema=mlruns/schema.json"
    assert json.loads((folder / "mlruns/schema.json").read_text())["properties"]
    read = yaml_io.read(folder / "photos.yaml")
    assert (read.study, read.metric, read.budget.hours) == ("photos", "overall_accuracy", 0.05)
    assert read.by_hours
    assert read.preset
    assert (read.data.layout, read.data.root) == ("folder", "photos")
    assert {"optimizer.lr", "loss"} <= set(Space(read, ["class"]).names)
    assert starter.is_unchanged(text)


@pytest.mark.slow
def test_run_on_the_folder_takes_the_file_of_before_and_trains(here):
    ended = sweep(here, "run", "photos", "--trials", "2", "--no-mlflow", "--devices", "cpu")
    assert ended.returncode == 0, ended.stderr
    assert "search space: photos.yaml (written earlier)" in ended.stderr
    assert len(list((here / "mlruns/studies/photos/trials").iterdir())) == 2
    recorded = json.loads((here / "mlruns/studies/photos/study.json").read_text())["identity"]["train"]
    assert recorded["normalize"] == {"mean": [0.1] * 3, "std": [0.2] * 3}


@pytest.mark.slow
def test_run_on_the_folder_describes_the_images_once(here):
    (here / "photos.yaml").unlink()
    words = ("--weights", "weights", "--trials", "1", "--no-mlflow", "--devices", "cpu")
    ended = sweep(here, "run", "photos", *words)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("data: photos, layout folder") == 1


@pytest.mark.slow
@pytest.mark.parametrize("change", ["# mine\n", "keep_checkpoints: 2\n"])
def test_run_on_the_folder_keeps_a_file_that_was_changed(here, monkeypatch, change):
    monkeypatch.chdir(here)
    changed = (here / "photos.yaml").read_text() + change
    (here / "photos.yaml").write_text(changed)
    with pytest.raises(UserError, match="already exists, but was not written for") as caught:
        init.for_run(Path("photos"), Options(), None)
    assert "sweep run photos.yaml" in caught.value.help
    assert (here / "photos.yaml").read_text() == changed


@pytest.mark.slow
def test_run_on_another_folder_of_the_same_name_does_not_take_it(here, monkeypatch):
    monkeypatch.chdir(here)
    photos(here / "other/photos")
    with pytest.raises(UserError, match=r"was not written for other/photos"):
        init.for_run(Path("other/photos"), Options(), None)


@pytest.mark.slow
def test_a_missing_folder_of_the_file_is_created(here, monkeypatch):
    monkeypatch.chdir(here)
    target = init.write(Path("photos"), Wishes(weights="weights", devices="cpu"), Path("new/mine.yaml"))
    assert yaml_io.read(target).budget.hours == 1.0
    assert target.parent.name == "new"


@pytest.mark.slow
def test_init_overwrites_nothing(here, monkeypatch):
    monkeypatch.chdir(here)
    before = (here / "photos.yaml").read_text()
    with pytest.raises(UserError, match="already exists") as caught:
        init.write(Path("photos"), Wishes())
    assert "--out OTHER.yaml" in caught.value.help
    assert (here / "photos.yaml").read_text() == before


# --------------------------------------------------------------------------------------- what it refuses
def refused(path: Path, wishes: Wishes = Wishes()) -> UserError:  # noqa: B008  frozen
    with pytest.raises(UserError) as caught:
        init.write(path, wishes)
    assert not list(Path.cwd().glob("*.yaml"))
    return caught.value


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "name"),
    [("shop/labels.csv", "shop.yaml"), ("shop/Train.tsv", "shop.yaml"), ("shop/prices.csv", "prices.yaml")],
)
def test_a_table_whose_name_says_nothing_has_its_folders(path, name):
    assert init.target_for(Path(path)) == Path(name)


def test_an_empty_folder_is_no_data_set(ground):
    (ground / "nothing").mkdir()
    assert refused(Path("nothing")).exit_code == 3


def test_a_folder_without_images_is_no_data_set(ground):
    (ground / "texts/a").mkdir(parents=True)
    (ground / "texts/a/notes.txt").write_text("no image")
    assert refused(Path("texts")).exit_code == 3


@pytest.mark.parametrize("name", ["study.json", "history.jsonl", "mlflow.db"])
def test_what_sweep_wrote_is_no_data_set(ground, name):
    photos(ground / "photos")
    (ground / "photos" / name).write_text("{}")
    error = refused(Path("photos"))
    assert (error.exit_code, error.what) == (2, "is a folder that sweep wrote, not a data set")


@pytest.mark.parametrize("place", ["mlruns", "mlruns/studies", "mlruns/studies/s/trials"])
def test_nothing_in_mlruns_is_a_data_set(ground, place):
    (ground / place).mkdir(parents=True)
    assert refused(Path(place)).what == "is a folder that sweep wrote, not a data set"


def test_a_class_may_have_the_name_of_a_folder_of_ours(ground):
    photos(ground / "photos")
    (ground / "photos/red").rename(ground / "photos/studies")
    assert refused(Path("photos"), Wishes(metric="f1")).where == "--metric"  # its data are read


def test_an_unknown_metric_is_answered_with_the_nearest(ground):
    photos(ground / "photos")
    error = refused(Path("photos"), Wishes(metric="f1"))
    assert (error.where, error.help) == ("--metric", "did you mean 'macro_f1'?")


def test_a_metric_of_another_kind_of_category_is_refused(ground):
    photos(ground / "photos")
    assert "try overall_accuracy" in refused(Path("photos"), Wishes(metric="micro_f1")).help


@pytest.mark.parametrize("kind", ["absent", "file", "empty", "texts"])
def test_weights_that_are_none_are_refused(ground, kind):
    photos(ground / "photos")
    place = ground / "weights"
    if kind == "file":
        place.write_bytes(b"x")
    elif kind != "absent":
        place.mkdir()
        if kind == "texts":
            (place / "readme.txt").write_text("x")
    error = refused(Path("photos"), Wishes(weights=str(place)))
    assert (type(error), error.where) == (EnvironmentFault, str(place))


@pytest.mark.parametrize("train", ["backbone: b, weights: mine", "backbone: b, pretrained: false"])
def test_weights_that_are_not_used_are_said_where_a_file_names_its_own(ground, capsys, train):
    (ground / "weights").mkdir()
    (ground / "weights" / "b.safetensors").write_bytes(b"x")
    space = ground / "own.yaml"
    space.write_text(f"data: {{root: photos}}\ntrain: {{{train}}}\n")
    assert init.with_weights(space, Options(), "weights") == Options()
    said = f"{space} sets its own weights, so those in weights are not used\n" if "mine" in train else ""
    assert capsys.readouterr().err == said


@pytest.mark.process
@pytest.mark.slow
def test_a_plan_takes_the_weights_of_a_folder(here):
    (here / "space.yaml").write_text(
        "data: {layout: folder, root: photos}\nbudget: {trials: 1}\n"
        "train: {backbone: test_resnet, image_size: 32, batch_size: 8, epochs: 1}\n"
    )
    for words, unfetched in (((), True), (("--weights", "weights"), False)):
        ended = sweep(here, "plan", "space.yaml", *words, HF_HOME=str(here / "hub"), SWEEP_TRAINER="", **OFFLINE)
        assert (ended.returncode, "model hub" in ended.stderr) == (0, unfetched), ended.stderr
    refusal = sweep(here, "plan", "space.yaml", "--weights", "nowhere")
    assert (refusal.returncode, "nowhere" in refusal.stderr) == (3, True)


def test_values_that_init_chooses_are_not_set(ground):
    photos(ground / "photos")
    assert "data.KEY=VALUE" in refused(Path("photos"), Wishes(sets=("train.epochs=3",))).help


@pytest.mark.slow
def test_without_hub_and_folder_both_ways_out_are_named(tmp_path):
    draw_photos(tmp_path)
    ended = sweep(tmp_path, "init", ".", "--out", "s.yaml", HF_HOME=str(tmp_path / "hub"), **OFFLINE)
    assert ended.returncode == 3
    assert "--weights DIR" in ended.stderr
    assert "--scratch" in ended.stderr
    assert not (tmp_path / "s.yaml").exists()


@pytest.mark.slow
def test_a_folder_of_weights_without_a_name_of_timms_is_named(tmp_path):
    photos(tmp_path / "photos")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/my_best.safetensors").write_bytes(b"")
    ended = sweep(tmp_path, "init", "photos", SWEEP_WEIGHTS="weights")
    assert ended.returncode == 3
    assert "has my_best" in ended.stderr


# --------------------------------------------------------------------------------------- what it chooses
TABLE = presets.TABLE["cpu"]
NAMES = presets.backbones("cpu")
FREE = [{"name": name, "fixed_size": False, "input_size": 224} for name in NAMES]


def pace(images_per_second: float, train: int = 1000, val: int = 200, slots: int = 1) -> Pace:
    return Pace(dict.fromkeys(NAMES, (images_per_second, 3 * images_per_second, 96)), train, val, slots)


def test_the_more_hours_the_better_the_preset():
    chosen = [presets.choose(TABLE, FREE, pace(150), 3600 * hours).preset for hours in (0.01, 0.1, 0.5, 1, 4, 100)]
    seconds = [one.epochs * one.image_size**2 for one in chosen]
    assert seconds == sorted(seconds)
    assert chosen[-1] == TABLE["best"]


@pytest.mark.parametrize("hours", [0.05, 0.2, 1, 8])
@pytest.mark.parametrize("speed", [30, 150, 3000])
@pytest.mark.parametrize("slots", [1, 2])
def test_two_shortened_trials_and_a_retraining_fit_or_the_fast_preset_is_left(hours, speed, slots):
    known = pace(speed, slots=slots)
    chosen = presets.choose(TABLE, FREE, known, 3600 * hours)
    whole = chosen.preset.epochs * known.epoch(chosen.backbones[0], chosen.preset.image_size)
    assert chosen.preset == TABLE[chosen.name]
    assert chosen.name == "fast" or (2 / slots + 1.2) * presets.SHORTENED * whole <= 3600 * hours


@pytest.mark.parametrize(("higher", "lower"), [("best", "good"), ("good", "fast")])
@pytest.mark.parametrize("table", presets.TABLE.values(), ids=presets.TABLE)
def test_a_preset_that_is_shortened_costs_about_what_the_one_below_does(table, higher, lower):
    costs = [table[name].epochs * table[name].image_size ** 2 for name in (lower, higher)]
    assert costs[0] / costs[1] == pytest.approx(presets.SHORTENED, abs=0.1)


def test_with_trials_side_by_side_a_better_preset_fits():
    one, two = (presets.choose(TABLE, FREE, pace(150, slots=slots), 400) for slots in (1, 2))
    assert (one.name, two.name) == ("good", "best")


def test_a_network_of_one_size_gets_that_size():
    only = [{"name": "mine", "fixed_size": True, "input_size": 224}]
    for hours in (0.01, 1, 100):
        paces = Pace({"mine": (50.0, 150.0, 224)}, 1000, 200)
        assert presets.choose(TABLE, only, paces, 3600 * hours).preset.image_size == 224


def test_backbones_of_a_folder_are_taken_though_no_preset_names_them():
    mine = [{"name": name, "fixed_size": False, "input_size": 224} for name in ("a", "b")]
    paces = Pace({"a": (500.0, 900.0, 96), "b": (400.0, 900.0, 96)}, 1000, 200)
    assert presets.choose(TABLE, mine, paces, 3600 * 10).backbones == ["a", "b"]


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("pretrained", [False, True])
@pytest.mark.parametrize("metric", ["overall_accuracy", "mean_class_accuracy", "log_loss"])
@pytest.mark.parametrize("augment", ["light", "medium", "family"])
@pytest.mark.parametrize("size", [None, 224])
def test_every_file_that_it_may_write_is_a_search_space(several, pretrained, metric, augment, size):
    preset = TABLE["good"]._replace(augment=augment)
    data = yaml_io.read(Path("x"), text="study: s\ndata: {layout: folder, root: a b}\ntrain: {backbone: x}\n").data
    made = starter.Starter(
        *("s", data, metric, 0.5, preset.backbones, pretrained, "w d", "good", size, 32),
        *(dict(presets.augmentation(preset, preset.backbones[0])), several, ["measured"]),
    )
    made = made if pretrained else replace(made, weights=None)
    read = yaml_io.read(Path("s.yaml"), text=starter.text(made, "x.json"))
    space = Space(read, ["class"])
    assert read.data.root == "a b"
    assert len(space.default()) == len(preset.backbones)
    assert space.smallest_window == pytest.approx(0.3**0.5)
