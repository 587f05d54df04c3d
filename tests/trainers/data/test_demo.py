"""Drawn garments in the challenge layout, with the real set's imbalance."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainers.config import DataConfig
from trainers.data import check, demo, layouts
from trainers.data.demo_images import Traits, picture
from trainers.data.table import Table
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
    with pytest.raises(UserError, match="something already"):
        demo.draw(root, images=(1, 1, 1))
    assert digests(root) == before
