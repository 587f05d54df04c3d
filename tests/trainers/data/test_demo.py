"""Drawn garments in the challenge layout, with the real set's imbalance."""

import csv
import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainers.data import check, demo, layouts
from trainers.data.challenge import FASHION
from trainers.data.demo_images import Traits, picture
from trainers.data.table import Table
from trainers.data_config import DataConfig
from trainers.support.errors import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "set"
    demo.draw(root, images=(120, 30, 20), seed=0)
    return root


@pytest.fixture(scope="module")
def table(root: Path) -> Table:
    return layouts.read(DataConfig(root=str(root), crop="box"))


def digests(root: Path) -> dict[str, str]:
    paths = sorted(root.rglob("*.*"))
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def test_the_demo_is_a_data_set_without_fault(root: Path):
    assert check.check(DataConfig(root=str(root), crop="box")).faults == ()


def test_the_demo_has_as_many_images_as_asked_for(table: Table):
    assert [len(table.split(name)) for name in ("train", "val", "test")] == [120, 30, 20]


def test_the_demo_has_the_six_known_categories(table: Table):
    assert [(c.name, len(c.classes)) for c in table.categories] == [
        ("texture", 7),
        ("sleeve", 3),
        ("length", 3),
        ("neckline", 4),
        ("material", 6),
        ("fit", 3),
    ]


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_class_occurs_about_as_often_as_in_the_real_set(table: Table, split: str):
    labels = np.array([row.labels for row in table.split(split)])
    for k, counts in enumerate(demo.COUNTS[split]):
        drawn = np.bincount(labels[:, k], minlength=len(counts))
        assert drawn.min() >= 1
        np.testing.assert_allclose(drawn / len(labels), np.array(counts) / sum(counts), atol=0.09)


def test_the_test_split_has_no_labels(root: Path, table: Table):
    assert {row.labels for row in table.split("test")} == {None}
    assert not (root / "split/test_attr.txt").exists()


def test_the_files_look_like_the_original(root: Path):
    assert (root / "split/list_attr_cloth.txt").read_text().startswith("26 \nattribute_name   attribute_type\nfloral")
    assert (root / "split/train.txt").read_text().startswith("img/00000.jpg\nimg/00001.jpg\n")
    line = (root / "split/train_bbox.txt").read_text().split("\n")[0]
    assert [len(word) for word in line.split(" ")] == [3, 3, 3, 3]


def test_images_have_the_sizes_of_the_original(root: Path):
    sizes = []
    for path in (root / "img").iterdir():
        with Image.open(path) as image:
            sizes.append(image.size)
    widths, heights = np.array(sizes).T
    assert 56 <= widths.min() <= widths.max() <= 301
    assert 138 <= heights.min() <= heights.max() <= 301
    assert abs(np.median(widths) - 214) < 15
    assert np.median(heights) == 300


def test_one_seed_gives_one_data_set_byte_for_byte(tmp_path: Path):
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        demo.draw(tmp_path / name, images=(12, 4, 2), seed=seed)
    first, again, other = (digests(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again
    assert [name for name in first if first[name] == other[name] and name.startswith("img")] == []


@pytest.mark.parametrize("trait", Traits._fields)
def test_each_trait_can_be_seen(trait: str):
    plain = Traits(texture=5, sleeve=2, length=2, neckline=0, material=2, fit=2)
    other = plain._replace(**{trait: 1})
    images = [
        np.asarray(picture(traits, (200, 300), np.random.default_rng(5))[0], dtype=float) for traits in (plain, other)
    ]
    assert np.abs(images[0] - images[1]).mean() > 0.3


def test_a_few_images_are_drawn_too(tmp_path: Path):
    demo.draw(tmp_path / "few", images=(3, 1, 0))
    assert len(layouts.read(DataConfig(root=str(tmp_path / "few"))).rows) == 4


def test_a_folder_that_holds_something_is_left_alone(root: Path):
    before = digests(root)
    with pytest.raises(UserError, match="already something"):
        demo.draw(root, images=(1, 1, 1))
    assert digests(root) == before


# ------------------------------------------------------------------------- missing and several answers
@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """The lines of the table of a set with a third of its answers missing and several textures an image."""
    root = tmp_path_factory.mktemp("demo") / "set"
    demo.draw(root, images=(120, 30, 20), seed=0, missing=0.3, multi=1)
    assert sorted(path.name for path in root.iterdir()) == ["img", "labels.csv"]
    assert len(list((root / "img").iterdir())) == 170
    with (root / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_share_of_the_answers_is_blank_and_those_of_test_all_are(told: list[dict[str, str]]):
    blank = {
        split: [not row[name] for row in told if row["split"] == split for name in FASHION.values()]
        for split in ("train", "val", "test")
    }
    assert [len(cells) // 6 for cells in blank.values()] == [120, 30, 20]
    assert np.mean(blank["train"]) == pytest.approx(0.3, abs=0.06)
    assert 0.1 < np.mean(blank["val"]) < 0.4
    assert all(blank["test"])


def test_each_class_keeps_an_answer_in_train_and_val(told: list[dict[str, str]]):
    for split in ("train", "val"):
        for names, category in FASHION.items():
            cells = [row[category].split("|") for row in told if row["split"] == split]
            assert set(names) <= set(itertools.chain(*cells)), (split, category)


def test_only_textures_are_several_and_solid_is_alone(told: list[dict[str, str]]):
    sets = [row["texture"].split("|") for row in told]
    assert {len(names) for names in sets} == {1, 2, 3}
    assert all(len(names) == 1 for names in sets if "solid" in names)
    assert not any("|" in row[name] for row in told for name in FASHION.values() if name != "texture")


def test_a_texture_over_another_can_be_seen():
    traits = Traits(texture=2, sleeve=0, length=0, neckline=0, material=2, fit=2)
    one, both = (
        np.asarray(picture(traits, (200, 300), np.random.default_rng(5), over=over)[0], dtype=float)
        for over in ((), (0,))
    )
    assert np.abs(one - both).mean() > 1


def test_missing_answers_leave_the_pictures_as_they_are(root: Path, tmp_path: Path):
    demo.draw(tmp_path / "blank", images=(120, 30, 20), seed=0, missing=0.5)
    pictures = {name: digest for name, digest in digests(root).items() if name.startswith("img")}
    assert {name: d for name, d in digests(tmp_path / "blank").items() if name.startswith("img")} == pictures
