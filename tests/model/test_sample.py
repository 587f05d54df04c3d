"""What a board's sample submission asks for: which column means what, and which image an id names."""

from pathlib import Path

import pytest

from sweeper.errors import DataError, UserError
from sweeper.model import sample

LIKE = Path("sample.csv")
GARMENT = {"name": "garment", "classes": ["shirt", "skirt"], "multi": False}
TAGS = {"name": "tags", "classes": ["warm", "dry", "shirt"], "multi": True}
SAID = {
    "garment": {
        "answers": ["skirt"],
        "classes": [{"class": "skirt", "probability": 0.7}, {"class": "shirt", "probability": 0.3}],
    },
    "tags": {
        "answers": ["dry", "warm"],
        "classes": [{"class": "dry", "probability": 0.9}, {"class": "warm", "probability": 0.6}],
    },
}


@pytest.mark.parametrize(
    ("header", "categories", "cells"),
    [
        (["garment", "tags"], [GARMENT, TAGS], ["skirt", "dry warm"]),
        (["tags", "garment"], [GARMENT, TAGS], ["dry warm", "skirt"]),
        (["tags"], [GARMENT, TAGS], ["dry warm"]),
        (["target"], [GARMENT], ["skirt"]),
        (["shirt", "skirt"], [GARMENT], ["0.3", "0.7"]),
        (["skirt", "warm", "dry"], [GARMENT, TAGS], ["0.7", "0.6", "0.9"]),
    ],
)
def test_columns_are_categories_or_classes_or_the_only_answer(header, categories, cells):
    found = sample.columns(header, categories, " ", LIKE)
    assert [cell(SAID) for cell in found] == cells


@pytest.mark.parametrize(
    ("header", "what"),
    [
        (["target"], "column 'target' is neither"),
        (["shirt", "warm"], "column 'shirt' is neither"),
        (["garment", "warm"], "some columns are named after categories of the model, others after classes"),
    ],
)
def test_other_columns_are_refused_with_the_categories(header, what):
    with pytest.raises(UserError, match=what) as caught:
        sample.columns(header, [GARMENT, TAGS], " ", LIKE)
    assert "garment (shirt, skirt); tags (warm, dry, shirt)" in caught.value.help


@pytest.mark.parametrize(
    ("paths", "ids"),
    [
        (["a/1.jpg", "b/1.jpg"], ["b/1.jpg", "a/1.jpg"]),
        (["a/1.jpg", "b/2.jpg"], ["2.jpg", "1.jpg"]),
        (["a/1.jpg", "b/2.png"], ["2", "1"]),
        (["a/0001.jpg", "a/0002.jpg"], ["2", "1"]),
        (["a/x.jpg", "a/y.tar.gz"], ["y.tar", "x"]),
    ],
)
def test_an_id_is_a_path_a_file_its_stem_or_its_number(paths, ids):
    assert sample.order(ids, paths, LIKE) == [1, 0]


def test_an_id_may_be_a_cell_of_the_row_of_an_image():
    cells = [{"Nr": "7", "Bild": "a.jpg", "set": "x"}, {"Nr": "8", "Bild": "b.jpg", "set": "x"}]
    assert sample.order(["8", "7"], ["a.jpg", "b.jpg"], LIKE, cells) == [1, 0]
    with pytest.raises(DataError) as caught:
        sample.order(["8", "9"], ["a.jpg", "b.jpg"], LIKE, cells)
    assert [fault.what for fault in caught.value.faults] == ["1 id has no image: 9", "1 image has no id: a.jpg"]


def test_ids_without_image_and_images_without_id_are_counted_and_named():
    paths = [f"a/{number}.jpg" for number in range(9)]
    with pytest.raises(DataError) as caught:
        sample.order(["0", "1", "1", "x"], paths, LIKE)
    assert [fault.what for fault in caught.value.faults] == [
        "1 id is listed twice: 1",
        "1 id has no image: x",
        "7 images have no id: a/2.jpg, a/3.jpg, a/4.jpg, a/5.jpg, a/6.jpg and 2 more",
    ]


def test_a_name_of_two_images_means_neither():
    with pytest.raises(DataError) as caught:
        sample.order(["1.jpg", "2.jpg"], ["a/1.jpg", "b/1.jpg", "b/2.jpg"], LIKE)
    assert caught.value.faults[0].what == "2 ids have no image: 1.jpg, 2.jpg"


def test_an_image_that_is_named_twice_is_called_so():
    with pytest.raises(DataError) as caught:
        sample.order(["1", "2"], ["a/1.jpg", "a/2.jpg", "a/1.jpg"], LIKE)
    assert [fault.what for fault in caught.value.faults] == ["1 image is listed twice: a/1.jpg"]
