"""Learning curves: an SVG that any browser draws by itself."""

import math
import xml.etree.ElementTree as ET

from studies import epoch

from sweeper import curves

SVG = "{http://www.w3.org/2000/svg}"


def drawn(*epochs) -> ET.Element:
    return ET.fromstring(curves.learning(epochs, "overall_accuracy", "t0007 <resnet> & co"))  # noqa: S314


def test_there_is_a_curve_of_goal_and_loss_for_val_and_train():
    lines = drawn(*(epoch(i, i / 10) for i in range(5))).findall(f".//{SVG}polyline")
    assert [len(line.get("points").split()) for line in lines] == [5, 5, 5, 5]


def test_a_rising_value_goes_up_from_left_to_right():
    line = drawn(epoch(0, 0.1), epoch(1, 0.9)).find(f".//{SVG}polyline")
    (x0, y0), (x1, y1) = (map(float, point.split(",")) for point in line.get("points").split())
    assert x1 > x0
    assert y1 < y0


def test_without_val_only_train_is_drawn():
    picture = drawn(epoch(0, 0.1, val=None), epoch(1, 0.2, val=None))
    assert len(picture.findall(f".//{SVG}polyline")) == 2


def test_what_is_no_number_leaves_a_gap():
    lines = drawn(epoch(0, 0.1), epoch(1, math.nan), epoch(2, 0.3)).findall(f".//{SVG}polyline")
    assert len(lines[0].get("points").split()) == 2


def test_a_single_epoch_and_equal_values_can_be_drawn():
    assert len(drawn(epoch(0, 0.5)).findall(f".//{SVG}circle")) == 4
    assert "nan" not in curves.learning([epoch(0, 0.5), epoch(1, 0.5)], "overall_accuracy", "x")


def test_no_epoch_makes_an_empty_picture():
    assert drawn().findall(f".//{SVG}polyline") == []
