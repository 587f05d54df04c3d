import time
from dataclasses import replace
from threading import current_thread

import numpy as np
import pytest
import torch
from torch import nn

from trainers.config import Augment, ColorJitter, RandomResizedCrop, Recipe, Views
from trainers.data.decoded_files import as_jpeg
from trainers.data_config import Framing
from trainers.evaluation.predict import Evaluator, windows
from trainers.loading import cpu_transforms, transforms
from trainers.loading.batches import Data, in_order
from trainers.loading.image_store import DeviceImageCache, gather, level, shared
from trainers.loading.loader import AugmentationSource, Loader
from trainers.loading.prefetch import prefetch
from trainers.models import network
from trainers.train import TrainingRun, train

CPU = torch.device("cpu")
EYE = cpu_transforms.InputFormat(CPU, torch.zeros(3), torch.ones(3), torch.contiguous_format)
STRONG = Augment(
    random_resized_crop=RandomResizedCrop(),
    rotation=10,
    color_jitter=ColorJitter(brightness=0.2, contrast=0.2),
    random_erasing=0.3,
    mixup=0.2,
)


@pytest.fixture(scope="module")
def data(photos, cache):
    return Data.open(photos, cache)


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def recipe(photos, **more):
    base = {"backbone": "test_resnet", "pretrained": False, "image_size": 32, "epochs": 1, "batch_size": 8}
    return Recipe(data=photos, train=base | more)


def epoch(data, config=STRONG, **how):
    """Every batch of one pass in order, as copies."""
    feed, rows = Loader(data, 32, EYE, **how), np.arange(40)
    rare = np.zeros(len(data.table.rows), dtype=bool)
    batches = feed.training(in_order(rows, 16), AugmentationSource(config, np.random.default_rng(1), rare))
    return [(b.images.clone(), b.labels, b.own, b.other) for b in batches]


def same(one, other):
    for first, second in zip(one, other, strict=True):
        for a, b in zip(first, second, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("hosted", [True, False])
def test_every_batch_has_its_rows_in_order(data, threads, hosted):
    batches = epoch(data, Augment(horizontal_flip=0), hosted=hosted)
    assert [len(images) for images, *_ in batches] == [16, 16, 8]
    images = torch.cat([images for images, *_ in batches])
    torch.testing.assert_close(images, shared(data.cache.images)[:40].permute(0, 3, 1, 2) / 255)
    assert torch.equal(torch.cat([labels for _, labels, *_ in batches]), torch.from_numpy(data.labels(range(40))))


@pytest.mark.parametrize("hosted", [True, False])
def test_the_side_thread_draws_the_noise(data, hosted, monkeypatch):
    """A GPU would wait for the main thread; the numbers are those of the draw's seed in either."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    drawn, randn = [], torch.randn
    monkeypatch.setattr(torch, "randn", lambda *a, **how: drawn.append(current_thread().name) or randn(*a, **how))
    config = Augment(horizontal_flip=0, noise=0.5, noise_std=0.1)
    found = epoch(data, config, hosted=hosted)
    assert len(drawn) == 3
    assert {name.split("_")[0] for name in drawn} == {"ahead"}
    rng, rows = np.random.default_rng(1), in_order(np.arange(40), 16)
    for (images, *_), part in zip(found, rows, strict=True):
        how = transforms.draw(config, np.asarray(data.cache.sizes[part]), rng, None, 32)
        raw = shared(data.cache.images)[torch.from_numpy(part)].permute(0, 3, 1, 2)
        torch.testing.assert_close(images, transforms.apply(raw, how, 32, EYE.mean, EYE.std)[0])


@pytest.mark.parametrize("hosted", [True, False])
def test_batches_made_ahead_are_those_made_in_turn(data, hosted):
    found, before = [], torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        found.append(epoch(data, hosted=hosted))
    torch.set_num_threads(before)
    same(*found)


@pytest.mark.parametrize("hosted", [True, False])
def test_a_batch_stays_as_it_is_until_the_next_is_asked_for(data, hosted):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    feed, rare = Loader(data, 32, EYE, hosted=hosted), np.zeros(len(data.table.rows), dtype=bool)
    drawing = AugmentationSource(STRONG, np.random.default_rng(1), rare)
    for batch in feed.training(in_order(np.arange(40), 8), drawing):
        first = batch.images.clone()
        time.sleep(0.05)  # in which the side thread makes the next
        assert torch.equal(batch.images, first)
    torch.set_num_threads(before)


def test_images_kept_on_the_device_give_the_batches_gathered_on_the_host(data):
    same(epoch(data, hosted=False), epoch(data, hosted=False, resident=True))


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("hosted", [True, False])
def test_jpegs_give_the_batches_of_the_pixels_that_they_decode_to(data, threads, hosted, resident):
    kept = as_jpeg(np.asarray(data.cache.images)), as_jpeg(np.asarray(data.cache.half))
    jpeg = replace(data, cache=replace(data.cache, images=kept[0], half=kept[1]))
    pixels = [gather(level, np.arange(len(level))).numpy() for level in kept]
    raw = replace(data, cache=replace(data.cache, images=pixels[0], half=pixels[1]))
    how = {"hosted": hosted, "resident": resident}
    same(epoch(jpeg, **how), epoch(raw, **how))
    views = Views(flip=True, scales=(1.0, 1.25), crops=5)
    found = []
    for each in (jpeg, raw):
        feed = Loader(each, 24, EYE, **how)
        found.append([x.clone() for x in feed.plain(in_order(np.arange(20), 8), windows(feed.source, views))])
    assert all(map(torch.equal, *found))


def test_both_lanes_draw_the_same_labels_and_shares(data):
    for ours, theirs in zip(epoch(data, hosted=True), epoch(data, hosted=False), strict=True):
        for a, b in zip(ours[1:], theirs[1:], strict=True):
            assert torch.equal(a, b)


def test_a_run_with_images_on_the_device_is_bit_for_bit_the_one_without(photos, data, tmp_path):
    found = []
    for resident in (False, True):
        run = TrainingRun(recipe(photos, augment=STRONG), data, ("train",), CPU, tmp_path / str(resident))
        run.lens.hosted, run.lens.resident = False, resident
        run.fit(0)
        found.append((run.net.state_dict(), run.evaluate().logits))
    assert all(torch.equal(found[0][0][key], value) for key, value in found[1][0].items())
    assert np.array_equal(found[0][1], found[1][1])


def test_small_inputs_come_from_the_half_size_level(data):
    assert level(data.cache, 16) is data.cache.half
    assert level(data.cache, 17) is data.cache.images


def test_training_looks_at_a_level_of_which_no_window_is_enlarged(photos, data, tmp_path):
    assert level(data.cache, 14, 0.875) is data.cache.half
    assert level(data.cache, 15, 0.875) is data.cache.images
    assert level(data.cache, 32, 0.5) is data.cache.images  # there is no more
    for scale, wanted in ((0.35, data.cache.images), (1.0, data.cache.half)):
        how = recipe(photos, image_size=16, augment=Augment(random_resized_crop={"scale": (scale, 1.0)}))
        lens = TrainingRun(how, data, ("train",), CPU, tmp_path / str(scale)).lens
        assert lens.feed(16, training=True).images is wanted
        assert lens.feed(16).images is data.cache.half


def test_the_map_is_shared_and_not_copied(data):
    assert shared(data.cache.images).data_ptr() == data.cache.images.ctypes.data
    assert torch.equal(gather(data.cache.images, np.array([5, 3])), shared(data.cache.images)[[5, 3]])


def test_a_data_sets_levels_stay_on_the_device_until_another_one_is_wanted(photos, cache):
    shelf, (first, second) = DeviceImageCache(), (Data.open(photos, cache) for _ in range(2))
    kept = shelf.take(first.cache.images, CPU)
    assert shelf.take(second.cache.images, CPU) is kept  # another look at the same file
    small = shelf.take(first.cache.half, CPU)
    assert torch.equal(small, shared(first.cache.half))
    assert shelf.take(first.cache.images, CPU) is kept
    shelf.take(np.zeros((2, 4, 4, 3), np.uint8), CPU)  # of another data set
    assert shelf.take(first.cache.images, CPU) is not kept


def test_what_fails_in_the_side_thread_fails_where_it_is_wanted(threads):
    def make(number):
        if number == 2:
            raise ValueError("no third one")
        return torch.tensor(number)

    made = prefetch(range(4), make, CPU)
    assert [int(next(made)), int(next(made))] == [0, 1]
    with pytest.raises(ValueError, match="no third one"):
        next(made)


def test_leaving_in_the_middle_makes_at_most_one_more():
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    made = []
    things = prefetch(range(100), lambda n: made.append(n) or torch.tensor(n), CPU)
    next(things)
    things.close()
    torch.set_num_threads(torch_threads)
    assert made in ([0], [0, 1])


@pytest.mark.parametrize("views", [Views(), Views(flip=True, scales=(1.0, 1.25), crops=5)])
def test_evaluation_sees_on_the_cpu_what_it_sees_on_a_device(data, views):
    chunks, found = in_order(np.arange(20), 8), []
    for hosted in (True, False):
        feed = Loader(data, 24, EYE, hosted=hosted)
        found.append([images.clone() for images in feed.plain(chunks, windows(feed.source, views))])
    assert len(found[0]) == len(found[1]) == 3 * views.count
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2.5 / 255, rtol=0)


@pytest.fixture(scope="module")
def tall(photos, cache):
    return Data.open(photos.model_copy(update={"size": 64}), cache, Framing("pad", 4, 3))


@pytest.mark.parametrize("views", [Views(), Views(flip=True, scales=(1.0, 1.25), crops=5)])
def test_windows_keep_the_aspect_and_are_the_same_on_every_device(tall, views):
    found = []
    for hosted, resident in ((True, False), (False, False), (False, True)):
        feed = Loader(tall, (48, 36), EYE, hosted=hosted, resident=resident)
        assert feed.source == (64, 48)
        for left, top, right, bottom, _ in windows(feed.source, views):
            assert (bottom - top) / (right - left) == pytest.approx(4 / 3, abs=0.05)
        found.append([x.clone() for x in feed.plain(in_order(np.arange(20), 8), windows(feed.source, views))])
    assert found[0][0].shape == (8, 3, 48, 36)
    for ours, theirs, kept in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2.5 / 255, rtol=0)
        assert torch.equal(theirs, kept)


def test_small_tall_inputs_come_from_the_half_size_level(tall):
    assert level(tall.cache, (32, 24)) is tall.cache.half
    assert level(tall.cache, (32, 25)) is tall.cache.images
    assert level(tall.cache, (33, 24)) is tall.cache.images


@pytest.mark.parametrize("fit", ["squash", "pad", "center"])
@pytest.mark.parametrize("hosted", [True, False])
def test_a_network_trains_on_tall_images(photos, cache, tmp_path, fit, hosted):
    size = {"height": 64, "width": 48}
    how = recipe(photos, image_size=size, fit=fit, augment=STRONG, progressive_resizing={"start": 0.5}, epochs=2)
    how = how.model_copy(update={"data": photos.model_copy(update={"size": 64})})
    data = Data.open(how.data, cache, how.train.framing)
    run = TrainingRun(how, data, ("train",), CPU, tmp_path)
    run.lens.hosted = hosted
    seen = []
    run.net.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[2:])))
    for index in range(2):
        run.fit(index)
    assert set(seen) == {(32, 32), (64, 48)}  # no side below two grains
    assert run.evaluate().logits.shape == (24, 5)


def _net(photos, data):
    return network.build(recipe(photos).train, data.sizes)


class Small(nn.Module):
    """A network with room for so many images."""

    def __init__(self, room: int, error: RuntimeError | None = None) -> None:
        super().__init__()
        self.room, self.seen = room, []
        self.error = error or torch.OutOfMemoryError("no room")

    def forward(self, x):
        self.seen.append(len(x))
        if len(x) > self.room:
            raise self.error
        return x.mean((2, 3))


@pytest.mark.parametrize("error", [None, RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")], ids=str)
def test_evaluation_without_room_tries_half_as_many_images_and_remembers(photos, data, error):
    lens = Evaluator(recipe(photos).train, data, _net(photos, data), CPU)
    lens.batch, net = 32, Small(10, error)
    logits = lens.logits(net, range(40))
    assert (logits.shape, lens.batch, net.seen[:3]) == ((40, 3), 8, [32, 16, 8])
    torch.testing.assert_close(logits, lens.logits(Small(100), range(40)))


def test_another_error_of_evaluation_is_not_tried_again(photos, data):
    lens, net = (
        Evaluator(recipe(photos).train, data, _net(photos, data), CPU),
        Small(0, RuntimeError("shapes differ")),
    )
    with pytest.raises(RuntimeError, match="shapes differ"):
        lens.logits(net, range(40))
    assert len(net.seen) == 1


def test_a_device_gets_images_in_one_shape_and_every_row_once(photos, data):
    lens = Evaluator(recipe(photos).train, data, _net(photos, data), CPU)
    lens.batch, found = 16, []
    for lens.hosted in (True, False):
        net = Small(100)
        found.append(lens.logits(net, range(41), Views(flip=True)))
        assert net.seen == ([16] * 4 + [9] * 2 if lens.hosted else [16] * 6)
    assert found[0].shape == found[1].shape == (41, 3)
    torch.testing.assert_close(*found, atol=0.05, rtol=0)
    few = Small(100)
    assert lens.logits(few, range(9)).shape == (9, 3)
    assert few.seen == [9]  # no more than there are


@pytest.mark.parametrize(
    ("size", "batch_size", "at_once"),
    [
        (64, 16, 256),
        (112, 16, 256),
        (224, 16, 83),
        (224, 64, 256),
        (448, 8, 32),
        ({"height": 64, "width": 32}, 8, 256),
    ],
)
def test_a_gpu_evaluates_four_training_batches_or_as_many_small_images_as_keep_it_busy(
    photos, data, size, batch_size, at_once
):
    how = recipe(photos, image_size=size, batch_size=batch_size).train
    assert Evaluator(how, data, _net(photos, data), torch.device("meta")).batch == at_once


def test_evaluation_without_room_for_a_single_image_says_so(photos, data):
    lens = Evaluator(recipe(photos).train, data, _net(photos, data), CPU)
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        lens.logits(Small(0), range(40))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_nothing_waits_for_the_gpu_inside_an_epoch(photos, data, tmp_path, precision):
    how = recipe(photos, augment=STRONG, precision=precision, clip_norm=1.0, weight_averaging={"name": "ema"})
    run = TrainingRun(how, data, ("train",), torch.device("cuda"), tmp_path)
    run.fit(0)  # makes what is made once
    feed, rng = run.lens.feed(32), np.random.default_rng(0)
    chunks = in_order(run.rows, 8)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in feed.training(chunks, AugmentationSource(how.train.augment, rng, run.minority)):
            run.backward(batch, 1)
            run.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gets_the_batches_that_the_cpu_gets(data):
    gpu = torch.device("cuda")
    there = cpu_transforms.InputFormat(gpu, EYE.mean.to(gpu), EYE.std.to(gpu), EYE.layout)
    rows, rare = in_order(np.arange(40), 16), np.zeros(len(data.table.rows), dtype=bool)
    for resident in (False, True):
        found = [
            [
                batch.images.cpu()
                for batch in Loader(data, 32, eye, hosted=False, resident=resident).training(
                    rows, AugmentationSource(STRONG, np.random.default_rng(1), rare)
                )
            ]
            for eye in (EYE, there)
        ]
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)


def test_train_passes_on_that_the_device_is_ours(photos, data, tmp_path):
    going = train(recipe(photos), data, tmp_path, resident=True)
    next(going)
    assert going.gi_frame.f_locals["run"].lens.resident
