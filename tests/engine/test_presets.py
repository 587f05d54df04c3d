"""Presets: what they give to a file, and to which."""

import json
from pathlib import Path

import pytest

from sweeper.engine import presets
from sweeper.space import yaml_io
from sweeper.space.space import Space
from sweeper.space.spec import StudySpec
from sweeper.store.paths import StudyFolder

PAGE = Path(__file__).parents[2] / "docs/reference/recipe.md"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def spec(more: str = "") -> StudySpec:
    path = Path("mine.yaml")
    path.write_text(f"data: {{layout: folder, root: photos}}\n{more}\n")
    return yaml_io.read(path)


def trained(given: StudySpec) -> tuple[object, ...]:
    train = Space(given, []).recipe({}).train
    return train.backbone, train.image_size, train.epochs, train.batch_size


def begin(given: StudySpec) -> None:
    """As a study that was begun with these values."""
    folder = StudyFolder.named(given.study)
    folder.root.mkdir(parents=True)
    known = {"schema_version": 2, "study": given.study, "identity": Space(given, []).identity()}
    folder.study_file.write_text(json.dumps(known))


@pytest.mark.parametrize(
    ("device", "text", "expected"),
    [
        ("cpu", "", ("mobilenetv3_large_100.ra_in1k", 128, 10, 32)),
        ("cpu", "preset: fast", ("mobilenetv3_small_100.lamb_in1k", 96, 4, 32)),
        ("cuda:0", "preset: best", ("convnext_small.fb_in22k_ft_in1k", 288, 20, 64)),
        ("mps", "train: {epochs: 3}", ("convnext_tiny.fb_in1k", 224, 3, 64)),
        ("cpu", "preset: best\ntrain: {backbone: resnet18}", ("resnet18", 192, 15, 32)),
        ("cpu", "budget: {hours: 1}\ntrain: {backbone: resnet18}", ("resnet18", 192, 15, 32)),
        ("cpu", "budget: {hours: 1}\ntrain: {backbone: resnet18, epochs: 3}", ("resnet18", 192, 3, 32)),
        ("cpu", "budget: {hours: 1}", ("mobilenetv3_large_100.ra_in1k", 128, 10, 32)),
    ],
)
def test_a_preset_gives_what_the_file_leaves_out(device, text, expected):
    assert trained(presets.filled(spec(text), lambda: device)) == expected


def test_a_file_with_a_backbone_and_no_preset_stays_as_it_is():
    given = spec("budget: {trials: 3, hours: 1}\ntrain: {backbone: resnet18}")
    assert presets.filled(given, lambda: pytest.fail("the device was asked for")) is given
    assert not presets.summary_line(given)


def test_values_that_are_left_open_stay_open():
    given = spec("budget: {trials: 3}\ntrain: {epochs: {int: [2, 5]}, augment: {choice: [{}, {rotation: 10}]}}")
    space = Space(presets.filled(given, lambda: "cpu"), [])
    assert space.names == ["epochs", "augment"]
    assert space.distributions()["epochs"] == "int [2, 5]"


@pytest.mark.parametrize(("began", "resumed"), [("cpu", "cuda:0"), ("cuda:0", "cpu")])
@pytest.mark.parametrize("text", ["", "preset: fast", "preset: best\ntrain: {image_size: 96}"])
def test_a_study_keeps_the_values_of_the_device_that_it_began_on(began, resumed, text):
    first = presets.filled(spec(text), lambda: began)
    begin(first)
    again = presets.filled(spec(text), lambda: resumed)
    assert Space(again, []).identity() == Space(first, []).identity()


@pytest.mark.parametrize(
    ("first", "second"),
    [("{hours: 1}", "{hours: 1, trials: 3}"), ("{trials: 3}", "{hours: 1}")],
    ids=["hours", "trials"],
)
def test_a_study_with_a_backbone_keeps_its_values_with_another_budget(first, second):
    text = "budget: {}\ntrain: {{backbone: resnet18}}"
    before = presets.filled(spec(text.format(first)), lambda: "cpu")
    begin(before)
    again = presets.filled(spec(text.format(second)), lambda: "cpu")
    assert Space(again, []).identity() == Space(before, []).identity()


def test_another_preset_is_another_study():
    first = presets.filled(spec("preset: fast"), lambda: "cpu")
    begin(first)
    assert trained(presets.filled(spec("preset: best"), lambda: "cpu")) == ("efficientnet_b0.ra_in1k", 192, 15, 32)


def test_it_is_told_in_one_line_without_the_augmentation():
    given = presets.filled(spec("preset: fast\ntrain: {epochs: 2}"), lambda: "cpu")
    line = "preset fast: backbone mobilenetv3_small_100.lamb_in1k, image_size 96, batch_size 32"
    assert presets.summary_line(given) == line


def test_the_reference_has_the_table():
    rows = [
        f"| {kind.upper()} | `{name}` | `{one.backbones[0]}` | {' | '.join(map(str, one[1:]))} |"
        for kind, table in presets.TABLE.items()
        for name, one in table.items()
    ]
    assert "\n".join(rows) in PAGE.read_text(encoding="utf-8")
