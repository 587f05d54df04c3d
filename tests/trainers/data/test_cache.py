"""Decoded once, whole or not at all, and shared by whoever asks."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainers.config import Augment
from trainers.data import cache, checksums, decoded_files, decoding, demo, images, layouts
from trainers.data.cache import Cache, open_cache
from trainers.data.decoded_files import ImageFormat, JpegImages
from trainers.data.table import Category, Row, Table
from trainers.data_config import DataConfig, Framing
from trainers.support.errors import DataError, EnvironmentFault

REPOSITORY = Path(__file__).parents[3]
BUILD = """
import os, signal, sys
from pathlib import Path
from trainers.data_config import DataConfig
from trainers.data import layouts
from trainers.data.cache import open_cache
from trainers.data import decoding
root, folder, mode = sys.argv[1:]
if mode.startswith("kill early"):
    decoding.SHARD = 1
if mode == "full":
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
def progress(done, total):
    print(done, flush=True)
    if mode.startswith("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
config = DataConfig(root=root, size=64, cache="jpeg" if mode.endswith("jpeg") else "auto")
open_cache(layouts.read(config), config, Path(folder), progress=progress)
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn") / "set"
    demo.draw(root, images=(60, 12, 8), seed=2)
    return root


def config(root: Path, size: int = 64, **settings: str) -> DataConfig:
    return DataConfig(root=str(root), size=size, **settings)


def opened(root: Path, folder: Path, size: int = 64, **settings: str) -> Cache:
    wanted = config(root, size, **settings)
    return open_cache(layouts.read(wanted), wanted, folder)


def building(root: Path, folder: Path, mode: str = "") -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", BUILD, str(root), str(folder), mode]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def of_sizes(root: Path, *sizes: tuple[int, int]) -> Table:
    for k, size in enumerate(sizes):
        Image.new("RGB", size).save(root / f"{k}.png")
    rows = tuple(Row(f"{k}.png", "train", None, (0,), "") for k in range(len(sizes)))
    return Table(root, (Category("c", ("a", "b")),), rows)


def test_an_image_is_what_pillow_makes_of_it(drawn: Path, tmp_path: Path):
    table = layouts.read(config(drawn))
    found = opened(drawn, tmp_path, 96)
    for index in (0, 59, 79):
        with Image.open(drawn / table.rows[index].path) as image:
            plain = image.resize((96, 96), Image.Resampling.BICUBIC)
            assert tuple(found.sizes[index]) == image.size
        np.testing.assert_array_equal(found.images[index], np.asarray(plain))
        np.testing.assert_array_equal(found.half[index], np.asarray(plain.resize((48, 48), Image.Resampling.BICUBIC)))


def test_a_cache_is_cut_to_the_boxes_when_asked(drawn: Path, tmp_path: Path):
    table = layouts.read(config(drawn, crop="box"))
    found = open_cache(table, config(drawn, crop="box"), tmp_path)
    box = table.rows[5].box
    assert box is not None
    with Image.open(drawn / table.rows[5].path) as image:
        plain = image.crop(box).resize((64, 64), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(found.images[5], np.asarray(plain))
    assert found.sizes[5].tolist() == [box[2] - box[0], box[3] - box[1]]


def test_a_cache_is_read_only_and_has_half_its_side_too(drawn: Path, tmp_path: Path):
    found = opened(drawn, tmp_path)
    assert (found.size, found.images.shape, found.half.shape) == (64, (80, 64, 64, 3), (80, 32, 32, 3))
    assert (found.images.dtype, found.sizes.dtype, found.sizes.shape) == (np.uint8, np.int32, (80, 2))
    assert not found.images.flags.writeable


def test_another_size_or_crop_is_another_cache_and_the_same_is_the_same(drawn: Path, tmp_path: Path):
    for size, crop in ((64, "none"), (96, "none"), (64, "box"), (64, "none")):
        opened(drawn, tmp_path, size, crop=crop)
    assert len(list(tmp_path.glob("*-*"))) == 3


def test_labels_and_splits_make_no_other_cache_but_the_order_does(drawn: Path, tmp_path: Path):
    table = layouts.read(config(drawn))
    other = [replace(row, split="train", labels=None) for row in table.rows]
    for rows in (table.rows, tuple(other), tuple(reversed(table.rows))):
        open_cache(replace(table, rows=rows), config(drawn), tmp_path)
    assert len(list(tmp_path.glob("*-*"))) == 2


def test_progress_is_told_while_building_and_not_when_opening(drawn: Path, tmp_path: Path):
    table, seen = layouts.read(config(drawn)), []
    for _ in range(2):
        open_cache(table, config(drawn), tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(32, 80), (64, 80), (80, 80)]


@pytest.mark.process
def test_of_two_processes_at_once_one_builds_and_both_succeed(drawn: Path, tmp_path: Path):
    processes = [building(drawn, tmp_path) for _ in range(2)]
    ends = [(process.communicate(timeout=60), process.returncode) for process in processes]
    assert [code for _, code in ends] == [0, 0], ends
    assert sorted(out for (out, _), _ in ends) == ["", "32\n64\n80\n"]


@pytest.mark.process
def test_a_build_goes_on_where_it_was_killed_as_often_as_that_happens(drawn: Path, tmp_path: Path):
    whole = opened(drawn, tmp_path / "whole")
    told: list[str] = []
    while said := building(drawn, tmp_path / "killed", "kill early").communicate(timeout=60)[0]:
        told.append(said)
        assert len(list((tmp_path / "killed").glob(".*.building"))) == 1
    assert told[0] == "32\n"
    assert [int(each) for each in told] == sorted({int(each) for each in told}), "nothing is decoded twice"
    found = opened(drawn, tmp_path / "killed")
    for name in ("images", "half", "sizes"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    assert mend(drawn, tmp_path / "killed") == ""


@pytest.mark.process
@pytest.mark.parametrize("point", ["written sizes.npy", "renamed sizes.npy", "written digests.json"])
def test_a_kill_between_two_writes_costs_no_image(
    drawn: Path, tmp_path: Path, point: str, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setenv("SWEEP_CRASH", point)
        process = building(drawn, tmp_path)
        process.communicate(timeout=60)
        assert process.returncode == -9
    seen: list[int] = []
    table = layouts.read(config(drawn))
    found = open_cache(table, config(drawn), tmp_path, progress=lambda done, _: seen.append(done))
    assert seen == ([32, 64, 80] if point == "written sizes.npy" else [])
    np.testing.assert_array_equal(found.images, opened(drawn, tmp_path / "whole").images)
    assert not list(tmp_path.rglob("*.tmp")), "the rest of the write that was cut short goes"


def test_an_interrupt_keeps_what_is_done_and_an_unfinished_cache_says_nothing_of_what_it_lacks(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(decoding, "SHARD", 1)

    def stop(done: int, _: int) -> None:
        raise KeyboardInterrupt

    table = layouts.read(config(drawn))
    with pytest.raises(KeyboardInterrupt):
        open_cache(table, config(drawn), tmp_path, progress=stop)
    (rest,) = tmp_path.glob(".*.building")
    known = np.load(rest / "sizes.npy")[:, 0] > 0
    assert known.sum() >= 32
    monkeypatch.undo()
    whole = opened(drawn, tmp_path / "whole")
    np.testing.assert_array_equal(np.load(rest / "images.npy", mmap_mode="r")[known], whole.images[known])


def test_a_rest_goes_when_its_data_set_is_built_in_another_state_and_others_stay(drawn: Path, tmp_path: Path):
    for name, root in (("a", drawn), ("b", tmp_path / "elsewhere")):
        rest = tmp_path / f".{name}-64.building"
        rest.mkdir()
        (rest / "meta.json").write_text(json.dumps({"root": str(root.resolve()), "size": 64}))
    (tmp_path / ".c-64.building").mkdir()  # that a discarded cache left
    opened(drawn, tmp_path)
    assert [path.name for path in tmp_path.glob(".*")] == [".b-64.building"]


def test_a_discarded_cache_is_no_rest_to_go_on_with(drawn: Path, tmp_path: Path):
    opened(drawn, tmp_path)
    (place,) = tmp_path.glob("*-64")
    (place / "images.npy").write_bytes(bytes(10))
    (place / decoded_files.SIZES).unlink()
    place.rename(place.with_name(f".{place.name}.building"))  # a kill in the middle of `discard`
    np.testing.assert_array_equal(opened(drawn, tmp_path).images, opened(drawn, tmp_path / "whole").images)


@pytest.mark.process
def test_a_killed_build_is_not_taken_for_whole_and_its_rest_goes_with_the_next(drawn: Path, tmp_path: Path):
    process = building(drawn, tmp_path, "kill")
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (-9, "32\n")
    assert [path.name[0] for path in tmp_path.glob("*") if path.is_dir()] == ["."]
    found = opened(drawn, tmp_path)
    assert found.images[-1].any()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


@pytest.mark.process
def test_a_write_that_fails_is_said_and_leaves_nothing(drawn: Path, tmp_path: Path):
    process = building(drawn, tmp_path, "full")
    _, error = process.communicate(timeout=60)
    assert "EnvironmentFault: the decoded images cannot be written: File too large" in error
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_too_small_a_disk_is_said_with_figures_before_anything_is_written(drawn: Path, tmp_path: Path):
    with pytest.raises(EnvironmentFault, match=r"need 9\d{4}\.\d\d GB, but only \d+\.\d\d GB are free") as caught:
        opened(drawn, tmp_path, 32 * 18_000, cache="raw")
    assert "data.cache: jpeg" in caught.value.help
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_unreadable_images_are_all_named_and_leave_no_cache(tmp_path: Path):
    table = of_sizes(tmp_path, (64, 64), (64, 64), (64, 64))
    (tmp_path / "1.png").unlink()
    (tmp_path / "2.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        open_cache(table, config(tmp_path), tmp_path / "cache")
    assert [fault.what for fault in caught.value.faults] == ["'1.png' No such file or directory", "'2.png' is empty"]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["lock"]


def test_a_cache_that_lost_a_file_is_built_again(drawn: Path, tmp_path: Path):
    opened(drawn, tmp_path)
    next(tmp_path.glob("*-64/half.npy")).unlink()
    assert opened(drawn, tmp_path).half.shape == (80, 32, 32, 3)


# ------------------------------------------------------------------------------------------- JPEG
def decoded(images: Any, threads: int = 1) -> np.ndarray:
    out = np.empty(images.shape, np.uint8)
    images.read(np.arange(len(images)), out, threads)
    return out


def test_a_cache_of_jpegs_holds_what_pillow_encodes_and_is_a_fifth_as_large(drawn: Path, tmp_path: Path):
    raw, found = (opened(drawn, tmp_path, 96, cache=kind) for kind in ("raw", "jpeg"))
    for level, pixels in ((found.images, raw.images), (found.half, raw.half)):
        assert isinstance(level, JpegImages)
        assert (level.shape, level.nbytes, len(level)) == (pixels.shape, pixels.nbytes, 80)
        for index in (0, 41, 79):
            buffer = io.BytesIO()
            Image.fromarray(pixels[index]).save(buffer, "JPEG", quality=95, subsampling=0)
            np.testing.assert_array_equal(decoded(level)[index], np.asarray(Image.open(buffer)))
        assert psnr(decoded(level), pixels) > 35
    np.testing.assert_array_equal(found.sizes, raw.sizes)
    assert len(found.images.content) < raw.images.nbytes / 3


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(max(((a / 255 - b / 255) ** 2).mean(), 1e-12)))


@pytest.mark.parametrize("threads", [2, 3, 200])
def test_jpegs_are_the_same_whatever_thread_decodes_them(drawn: Path, tmp_path: Path, threads: int):
    found = opened(drawn, tmp_path, cache="jpeg").images
    np.testing.assert_array_equal(decoded(found, threads), decoded(found))
    rows, out = np.array([70, 3, 3]), np.empty((3, 64, 64, 3), np.uint8)
    found.read(rows, out, threads)
    np.testing.assert_array_equal(out, decoded(found)[rows])


@pytest.mark.process
def test_a_build_of_jpegs_goes_on_where_it_was_killed(drawn: Path, tmp_path: Path):
    while building(drawn, tmp_path / "killed", "kill early jpeg").communicate(timeout=60)[0]:
        assert len(list((tmp_path / "killed").glob(".*-jpeg.building"))) == 1
    found, whole = (opened(drawn, tmp_path / name, cache="jpeg") for name in ("killed", "whole"))
    for name in ("images", "half"):
        np.testing.assert_array_equal(decoded(getattr(found, name)), decoded(getattr(whole, name)))
    np.testing.assert_array_equal(found.sizes, whole.sizes)
    assert mend(drawn, tmp_path / "killed", cache="jpeg") == ""


def test_images_are_kept_as_jpeg_where_raw_pixels_have_no_room(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    table = layouts.read(config(drawn))
    assert cache.kind(table, config(drawn), tmp_path / "not there yet") == "raw"
    assert cache.kind(table, config(drawn, 32 * 18_000), tmp_path) == "jpeg"
    monkeypatch.setattr(cache, "SPARE", 2**60)
    assert cache.kind(table, config(drawn), tmp_path) == "jpeg"
    assert cache.kind(table, config(drawn, cache="raw"), tmp_path) == "raw"
    monkeypatch.undo()
    opened(drawn, tmp_path)
    monkeypatch.setattr(cache, "SPARE", 2**60)
    assert cache.kind(table, config(drawn), tmp_path) == "raw"  # that are there already
    assert cache.kind(table, config(drawn, cache="jpeg"), tmp_path) == "jpeg"


def test_a_damaged_jpeg_is_found_and_its_cache_made_anew(drawn: Path, tmp_path: Path):
    whole = decoded(opened(drawn, tmp_path, cache="jpeg").images)
    (place,) = tmp_path.glob("*-64-jpeg")
    for name in ImageFormat(64, 64, "jpeg").files:
        content = (place / name).read_bytes()
        (place / name).write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
        assert mend(drawn, tmp_path, cache="jpeg") == f"{place}: {name} has changed since it was written"
        np.testing.assert_array_equal(decoded(opened(drawn, tmp_path, cache="jpeg").images), whole)


def test_what_jpegs_cost_is_measured_with_images_of_the_data_set(drawn: Path, tmp_path: Path):
    found = opened(drawn, tmp_path, 96, cache="jpeg")
    cost = decoding.jpeg_cost(layouts.read(config(drawn)), ImageFormat(96, 96, "jpeg"))
    assert cost.bytes == pytest.approx((len(found.images.content) + len(found.half.content)) / 80, rel=0.2)
    assert 0 < cost.ms < 100
    nothing = of_sizes(tmp_path, (64, 64))
    (tmp_path / "0.png").unlink()
    assert decoding.jpeg_cost(nothing, ImageFormat(96, 96, "jpeg")).ms == 0


# ------------------------------------------------------------------------------------------- damage
DAMAGES = {
    "flipped": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    "a block of zeros": lambda content: content[: len(content) // 2] + bytes(len(content) - len(content) // 2),
}


def mend(root: Path, folder: Path, **settings: Any) -> str:
    kind = {"cache": settings.pop("cache", "auto")}
    return cache.mend(layouts.read(config(root)), config(root, **kind), folder, **settings)


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("name", [*ImageFormat(64, 64).files, "digests.json"])
def test_a_byte_that_is_not_as_it_was_written_is_found_and_the_images_are_made_anew(
    drawn: Path, tmp_path: Path, name: str, kind: str
):
    whole = np.array(opened(drawn, tmp_path).images)
    (place,) = tmp_path.glob("*-64")
    before = (place / name).read_bytes()
    (place / name).write_bytes(DAMAGES[kind](before))
    said = mend(drawn, tmp_path)
    assert said.startswith(f"{place}: ")
    assert "has changed since it was written" in said or "digests.json is damaged" in said
    assert not place.exists()
    np.testing.assert_array_equal(opened(drawn, tmp_path).images, whole)
    assert (place / name).read_bytes() == before
    assert mend(drawn, tmp_path) == ""


def test_a_cache_that_is_whole_stays_and_is_read_to_its_end(drawn: Path, tmp_path: Path):
    opened(drawn, tmp_path, 64)
    (place,) = tmp_path.glob("*-64")
    seen, before = [], place.stat().st_ino
    assert mend(drawn, tmp_path, progress=lambda done, total: seen.append((done, total))) == ""
    assert seen == [(4, 12), (8, 12), (12, 12)]
    assert place.stat().st_ino == before


def test_a_cache_without_digests_is_made_anew_and_none_at_all_is_no_damage(drawn: Path, tmp_path: Path):
    assert mend(drawn, tmp_path / "nothing") == ""
    opened(drawn, tmp_path)
    (place,) = tmp_path.glob("*-64")
    (place / "digests.json").unlink()
    assert mend(drawn, tmp_path) == f"{place}: there is no digests.json"


def test_more_than_the_memory_holds_is_not_read(drawn: Path, tmp_path: Path):
    opened(drawn, tmp_path)
    (place,) = tmp_path.glob("*-64")
    (place / "digests.json").unlink()
    assert mend(drawn, tmp_path, most=10**6) == ""
    assert mend(drawn, tmp_path, most=2 * 10**6).endswith("no digests.json")


def test_every_block_counts_and_so_does_their_number(tmp_path: Path):
    content = np.random.default_rng(0).bytes(2 * checksums.BLOCK + 5)
    (tmp_path / "x").write_bytes(content)
    checksums.write(tmp_path, ["x"])
    assert checksums.wrong(tmp_path, ["x"]) == ""
    for at in (0, checksums.BLOCK - 1, checksums.BLOCK, len(content) - 1):
        (tmp_path / "x").write_bytes(content[:at] + bytes([content[at] ^ 128]) + content[at + 1 :])
        assert checksums.wrong(tmp_path, ["x"]) == "x has changed since it was written"
    for other in (content[: checksums.BLOCK], content + b"x", content + bytes(checksums.BLOCK), b""):
        (tmp_path / "x").write_bytes(other)
        assert checksums.wrong(tmp_path, ["x"]) == "x has changed since it was written"


@pytest.mark.parametrize(
    ("image_size", "originals", "side"),
    [
        (224, (400, 500), 256),  # the next multiple of 32 from 1.14 x 224
        (64, (400, 500), 96),
        (224, (214, 300), 224),  # the short side allows 192, which would be less than the network takes
        (160, (176, 235), 160),
        (512, (176, 235), 256),  # the long side has no more
        (32, (20, 20), 32),
    ],
)
def test_the_side_gives_room_to_crop_within_what_the_originals_hold(
    tmp_path: Path, image_size: int, originals: tuple[int, int], side: int
):
    assert cache.side(image_size, of_sizes(tmp_path, originals, originals, (900, 900))) == side


@pytest.mark.parametrize(
    ("framing", "originals", "side"),
    [
        (Framing("pad", 4, 3), (1200, 1600), 224),
        (Framing("pad", 2, 1), (400, 400), 224),
        (Framing("center", 2, 1), (150, 190), 192),  # 95 x 190 are left of it, and the network takes 192
        (Framing("center", 1, 1), (600, 210), 192),
        (Framing("pad", 1, 1), (210, 60), 192),
        (Framing("pad", 1, 1), (100, 60), 128),
    ],
)
def test_the_longer_side_of_padded_and_cut_images_is_at_most_that_of_what_is_shown(
    tmp_path: Path, framing: Framing, originals: tuple[int, int], side: int
):
    assert cache.side(192, of_sizes(tmp_path, originals), framing=framing) == side


# ------------------------------------------------------------------------------------------- shapes
def striped(width: int, height: int) -> Image.Image:
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(
        np.stack([across * 255 // width, down * 255 // height, across * 0 + 200], 2).astype(np.uint8)
    )


@pytest.mark.parametrize("original", [(300, 300), (120, 400), (500, 90), (64, 48), (7, 3)])
@pytest.mark.parametrize("fit", ["pad", "center"])
def test_padded_and_cut_images_keep_their_aspect(tmp_path: Path, fit: Any, original: tuple[int, int]):
    table = of_sizes(tmp_path, original)
    picture = striped(*original)
    picture.save(tmp_path / "0.png")
    found = open_cache(table, config(tmp_path, 96), tmp_path / "cache", Framing(fit, 4, 3))
    assert (found.images.shape, found.half.shape, found.size) == ((1, 96, 72, 3), (1, 48, 36, 3), 96)
    width, height = original
    scale = min(72 / width, 96 / height) if fit == "pad" else max(72 / width, 96 / height)
    inner = max(1, round(width * scale)), max(1, round(height * scale))
    plain, canvas = picture.resize(inner, Image.Resampling.BICUBIC), Image.new("RGB", (72, 96), images.GROUND)
    canvas.paste(plain, (round((72 - inner[0]) / 2), round((96 - inner[1]) / 2)))
    assert psnr(np.asarray(found.images[0]), np.asarray(canvas)) > 30
    shown = (72 / scale, 96 / scale)
    assert found.sizes[0].tolist() == pytest.approx(shown, abs=1)


def test_each_way_is_a_cache_of_its_own_and_squashed_ones_are_those_of_before(drawn: Path, tmp_path: Path):
    table = layouts.read(config(drawn))
    ways = (Framing(), Framing("pad", 4, 3), Framing("center", 4, 3), Framing("pad", 3, 4), Framing("pad"))
    for framing in ways:
        open_cache(table, config(drawn), tmp_path, framing)
        assert cache.mend(table, config(drawn), tmp_path, framing) == ""
    names = {path.name.partition("-")[2] for path in tmp_path.glob("[!.]*-*")}
    assert names == {"64", "64x48-pad", "64x48-center", "48x64-pad", "64x64-pad"}
    assert {place.size for place in cache.places(tmp_path)} == {64}


def test_padded_images_may_be_jpegs_and_boxes(drawn: Path, tmp_path: Path):
    how = config(drawn, 64, crop="box", cache="jpeg")
    found = open_cache(layouts.read(how), how, tmp_path, Framing("pad", 2, 1))
    assert found.images.shape == (80, 64, 32, 3)
    assert isinstance(found.images, JpegImages)
    pixels = decoded(found.images)
    assert np.abs(pixels[:, :2, :2].astype(int) - images.GROUND).max(axis=(1, 2, 3)).min() < 12  # some have a margin


@pytest.mark.parametrize(
    ("augment", "image_size", "side"),
    [
        ({}, 224, 256),
        ({"random_shift": 0.125}, 224, 256),  # an eighth of the side is what the margin is for
        ({"random_shift": 0.125}, 64, 96),
        ({"rotation": 30}, 160, 192),
        ({"random_resized_crop": {"scale": (0.35, 1.0)}}, 224, 384),
        ({"random_resized_crop": {"scale": (0.35, 1.0)}}, 112, 192),
        ({"random_resized_crop": {"scale": (0.5, 1.0)}}, 64, 96),
        ({"random_resized_crop": {"scale": (0.25, 0.5)}}, 128, 256),
        ({"random_resized_crop": {"scale": (0.25, 1.0)}, "random_shift": 0.5}, 64, 256),
        ({"random_resized_crop": {"scale": (0.08, 1.0)}}, 448, 992),  # the originals hold no more
        ({"random_resized_crop": {"scale": (1.0, 1.0)}}, 224, 256),
    ],
)
def test_no_random_crop_of_a_large_photograph_is_enlarged(
    tmp_path: Path, augment: dict[str, Any], image_size: int, side: int
):
    window = Augment(**augment).smallest_window
    assert cache.side(image_size, of_sizes(tmp_path, (1000, 1200)), window) == side
    assert window * side >= image_size or side == 992


def test_the_side_of_a_cropped_data_set_follows_its_boxes(tmp_path: Path):
    table = of_sizes(tmp_path, (900, 900))
    boxed = replace(table, rows=(replace(table.rows[0], box=(10, 10, 110, 140)),))
    assert cache.side(224, boxed) == 160
