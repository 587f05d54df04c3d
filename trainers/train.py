"""Training as a generator of epochs: the caller's loop is the callback, and leaving the loop stops training."""

import math
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from trainers.config import Recipe
from trainers.epoch import Epoch, Scores
from trainers.evaluation import model_file, predict
from trainers.evaluation.model_file import Calibration
from trainers.evaluation.predict import Evaluator, Validation
from trainers.evaluation.tally import Tally
from trainers.loading import transforms
from trainers.loading.batches import Data, balanced, drawn, shuffled
from trainers.loading.image_store import DEVICE_IMAGES
from trainers.loading.loader import AugmentationSource, Batch
from trainers.metrics.definitions import BUILT_IN
from trainers.models import network
from trainers.optim import averaging, losses, optimizers
from trainers.support import device as devices
from trainers.support import run_state
from trainers.support.errors import Diverged, EnvironmentFault, Overflowed
from trainers.support.position import Cursor, Position
from trainers.support.threads import CheckpointWriter

FEW = 3  # batches of an epoch, or a twentieth of them, that may overflow in fp16: the scaler skips them


def train(
    recipe: Recipe,
    data: Data,
    folder: Path,
    *,
    fit: Sequence[str] = ("train",),
    device: str = "cpu",
    past: Sequence[float] = (),
    resident: bool = False,
    micro_batch: int | None = None,
    full_precision: bool = False,
    calibration: Calibration | None = None,
    cursor: Cursor | None = None,
    raw: bool = False,
    recorded: Sequence[Epoch] = (),
) -> Generator[Epoch]:
    """Train a recipe on the splits `fit`; yields every epoch of the run, from the first to the last.

    An earlier, interrupted call in `folder` is resumed: the epochs in its last.ckpt are yielded again at once, then
    training continues. On a CPU with the same number of threads the result is bit for bit as if it had never stopped
    (unless the recipe compiles). A thread writes last.ckpt while training continues, often enough that a kill costs
    half a minute, or one epoch if that is longer. When the last epoch is yielded, and when the generator has been
    closed, all epochs are on disk; a write error is raised at the end of the next epoch, or at one of these points.
    Next to last.ckpt are model.safetensors and val_logits.npy (corrected if the recipe requests it), those of the
    epoch selected so far: the newest, or the best by the recipe's selection. Averaged weights replace the plain ones.
    Without val (it is fitted, or there is none) the newest epoch is selected.
    `recorded`: the epochs yielded before; the figures of an epoch that is trained again stay as they were.
    `past`: the metric's values after each epoch of an earlier run whose plateau schedule this run repeats.
    `resident`: this process has the GPU to itself and keeps the decoded images there, if they leave room.
    `micro_batch`: the largest number of images that pass through the network at once. Larger batches are split into
    pieces whose gradients add up: steps, schedule and loss are those of whole batches; a batch norm sees one piece.
    `full_precision`: 32 bits whatever the recipe says, for a run that overflowed in 16.
    `calibration`: the calibration stored in model.safetensors; if left out, the one fitted on val, if there is a val.
    `cursor`: kept at the last batch done, in training and in evaluation.
    `raw`: val_logits.npy holds the raw logits of the network, whatever the recipe says.

    Raises Diverged if the loss or a metric that decides something is no longer finite, Overflowed if fp16 may be the
    cause, and EnvironmentFault if there is nothing to train on.
    """
    DEVICE_IMAGES.clear(unless=resident)
    run = TrainingRun(recipe, data, fit, torch.device(device), folder, past, full_precision=full_precision)
    run.calibration = calibration
    run.cursor = run.lens.cursor = cursor or Cursor()
    run.lens.resident, run.micro_batch = resident, micro_batch or recipe.train.batch_size
    yield from list(run.epochs)
    with run.writer:
        for index in range(len(run.epochs), recipe.train.epochs):
            began = time.monotonic()
            fitted, rate, pace = run.fit(index)
            run.check(index, rate, "training", fitted)
            seen = run.evaluate()
            run.cursor.at = None
            run.check(index, rate, "val", seen.val)
            run.check_metrics(index, seen.val)
            epoch = Epoch(
                number=index + 1,
                train=fitted,
                val=seen.val,
                plain=seen.plain,
                corrected=seen.corrected,
                thresholds=seen.thresholds,
                temperature=seen.temperature,
                lr=rate,
                seconds=time.monotonic() - began,
                images_per_second=pace,
                peak_memory_gb=devices.peak_memory_gb(run.device),
                time=time.time(),
            )
            stands = recorded[index] if index < len(recorded) else epoch
            run.save(stands, seen.raw if raw else seen.logits)
            yield stands.measured_as(epoch)


class Mean:
    """The mean loss over the images of an epoch, kept on the device until it is read.

    handled: a scaler skips the steps whose loss is not finite, so these do not count here either.
    """

    def __init__(self, device: torch.device, *, handled: bool) -> None:
        self.handled, self.images = handled, 0
        self.total, self.left_out = torch.zeros((), device=device), torch.zeros(2, device=device)  # images, batches

    def add(self, loss: Tensor, images: int) -> None:
        """Add the mean loss of a batch; does not wait for the device."""
        self.images += images
        if self.handled:
            finite = loss.isfinite()
            self.left_out += torch.stack([~finite * images, ~finite])
            loss = loss.where(finite, 0)
        self.total += loss * images

    def lost(self) -> int:
        """Return the number of batches that do not count."""
        return round(self.left_out[1].item())

    def value(self) -> float:
        counted = self.images - self.left_out[0].item()
        return self.total.item() / counted if counted else math.nan


def _cause(metric: str) -> str:
    """Return why a metric may not be a number, as the end of a sentence."""
    return ": no answer in val defines it" if metric in BUILT_IN else ": its function returned this value"


def _finite(tensors: Iterable[Tensor]) -> bool:
    found = [tensor.isfinite().all() for tensor in tensors]
    return not found or bool(torch.stack(found).all().item())


class TrainingRun:
    """The state of one training run between epochs: network, optimizer, objective and rows."""

    def __init__(
        self,
        recipe: Recipe,
        data: Data,
        fit: Sequence[str],
        where: torch.device,
        folder: Path,
        past: Sequence[float] = (),
        *,
        full_precision: bool = False,
    ) -> None:
        self.recipe, self.data, self.device, self.folder = recipe, data, where, folder
        self.config = recipe.in_full.train if full_precision else recipe.train
        self.fitted_on, self.full_precision = tuple(fit), full_precision
        self.calibration: Calibration | None = None
        self.cursor = Cursor()
        self.past, self.micro_batch = past, recipe.train.batch_size
        self.writer = CheckpointWriter()
        self.model: Callable[[], run_state.Model] | None = None  # of the selected epoch, until it is on disk
        self.rows = data.table.indices(*fit)
        self.val = [] if "val" in fit else data.table.indices("val")
        if not self.rows:
            raise EnvironmentFault(f"there are no images in split {' + '.join(fit)}", where=str(data.table.root))
        devices.prepare(where)
        devices.warn_of_emulation(self.config, where)
        state = run_state.state(folder, recipe.model_dump_json(), validated=bool(self.val))
        self.net = self._network(state).to(where)
        self.counts = data.counts(self.rows)
        self.known = data.known(self.rows)  # [K], the share of known answers
        answered = [round(share * len(self.rows)) for share in self.known]
        network.set_class_counts(self.net, self.counts, answered, data.multi)
        self.average = averaging.build(self.config.weight_averaging, self.net, self.config.epochs)
        self.forward = (
            devices.Compiled(self.net) if self.config.compile else self.net
        )  # of a training step; val runs eagerly
        self.lens = Evaluator(self.config, data, self.net, where)
        self.frozen = optimizers.frozen_names(self.net.backbone)
        self.optimizer = optimizers.build(self.config.optimizer, self.net.backbone, self.net.head)
        self.scaler = devices.scaler(self.config, where)
        self.objective = self._loss(self.rows)
        self.eval_loss = self._loss(self.val, smooth=False)
        every = range(len(data.table.rows))
        self.minority = transforms.minority(data.labels(every), self.counts, data.categories)  # [rows]
        self.mean_weight = 1.0 if data.weights is None else float(data.weights[self.rows].mean())
        self.epochs = self._restore(state) if state else []

    def _loss(self, rows: Sequence[int], *, smooth: bool = True) -> losses.Objective:
        """Return the objective that is minimised over these rows."""
        data, loss = self.data, self.config.loss
        known = data.known_to(loss, rows)
        return losses.build(loss, data.names, self.counts, self.device, multi=data.multi, known=known, smooth=smooth)

    def fit(self, index: int) -> tuple[Scores, float, float]:
        """Run one pass over the training rows; returns its scores, the head's last rate and images per second."""
        rng, began = np.random.default_rng([self.config.seed, index]), time.monotonic()
        torch.manual_seed(int(rng.integers(2**63)))  # dropout and drop path: the same whether resumed or not
        chunks = self.chunks(rng)
        tally, mean, rate = self.passed(index, chunks, rng)
        self._follow(index)
        self._mend(index, rate, mean, len(chunks))
        scores = tally.scores(mean.value())  # waits for the device, once per epoch
        return scores, rate, sum(map(len, chunks)) / (time.monotonic() - began)

    def passed(
        self, index: int, chunks: Sequence[np.ndarray], rng: np.random.Generator
    ) -> tuple[Tally, "Mean", float]:
        """Run the steps of an epoch, without waiting for the device; returns their counts, loss and last rate."""
        size = self.config.progressive_resizing.size(self.config.input_size, index / self.config.epochs)
        feed = self.lens.feed(size, training=True)
        drawing = AugmentationSource(self.config.augment, rng, self.minority)
        past = self._past(index)
        tally = Tally(self.data.categories, self.device, missing=min(self.known) < 1, images=sum(map(len, chunks)))
        mean = Mean(self.device, handled=self.scaler.is_enabled())
        rate = 0.0
        self.net.train()
        optimizers.thaw(self.net.backbone, optimizers.learning(self.config.freeze, index), self.frozen)
        for step, batch in enumerate(feed.training(chunks, drawing)):
            first = step - step % self.config.accumulate
            batches = min(self.config.accumulate, len(chunks) - first)  # that share the next step of the optimizer
            loss, logits = self.backward(batch, batches)
            if step + 1 == first + batches:
                progress = index + (first + 0.5 * batches) / len(chunks)
                share = optimizers.factor(self.config.schedule, progress, self.config.epochs, past)
                rate = optimizers.set_rate(self.optimizer, share)
                self.step()
            tally.update(logits, batch.labels)
            mean.add(loss, len(batch.images))
            self.cursor.at = Position("train", step + 1, len(chunks))
        return tally, mean, rate

    def _past(self, index: int) -> list[float]:
        """Return the history that the schedule sees, oriented so that larger is better: the metric after each epoch,
        or train's loss if there is no val and train does not record the metric.
        """
        metric, oriented = self.recipe.metric, self.recipe.oriented
        if self.past[:index]:
            return [oriented(value) for value in self.past[:index]]
        values = [(epoch.known(metric), epoch.train.loss) for epoch in self.epochs]
        return [-loss if value is None else oriented(value) for value, loss in values]

    def chunks(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Return the rows of each batch of an epoch."""
        if not self.config.balanced_sampling:
            return shuffled(self.rows, self.config.batch_size, rng)
        labels = self.data.labels(self.rows)
        shares = balanced(labels, self.counts, self.config.balanced_sampling, self.data.categories)
        return drawn(self.rows, shares, self.config.batch_size, rng)

    def backward(self, batch: Batch, batches: int) -> tuple[Tensor, Tensor]:
        """Add one batch's gradient to those of its step; returns the mean loss and the logits, detached."""
        total, seen = torch.zeros((), device=self.device), []
        for piece in batch.pieces(self.micro_batch):
            loss, logits = self.image_losses(piece)
            share = loss.mean() * (len(loss) / len(batch.images))
            self.scaler.scale(share / batches).backward()  # type: ignore[no-untyped-call]
            total += share.detach()
            seen.append(logits.detach())
        return total, torch.cat(seen)

    def image_losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss of each image, [B], and the logits."""
        with devices.autocast(self.config, self.device):
            logits = self.forward(batch.images)
        loss = self._weighed(self.objective(logits, batch.labels), batch.weights)
        if batch.own is not None and batch.other is not None:
            other = self._weighed(self.objective(logits, batch.other), batch.other_weights)
            loss = batch.own * loss + (1 - batch.own) * other
        return loss, logits

    def _weighed(self, loss: Tensor, weights: Tensor | None) -> Tensor:
        """Return losses [B] times the images' weights, scaled to a mean of 1 over the training images."""
        return loss if weights is None else loss * (weights / self.mean_weight)

    def step(self) -> None:
        """Update the weights and their average once."""
        if self.config.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(optimizers.parameters(self.optimizer), self.config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.step(self.net)

    def _follow(self, index: int) -> None:
        """Update the average of the weights at the end of an epoch."""
        if self.average is not None and self.average.epoch(self.net, index):
            self._renew(self.average.net, averaging.training_norms(self.net), index)

    def _renew(self, net: torch.nn.Module, norms: Sequence[str], index: int) -> None:
        """Recompute the statistics of norms from some training images, as evaluation sees and computes them."""
        some = np.random.default_rng([self.config.seed, index]).permutation(self.rows)[: averaging.STATISTICS]
        size = 2 * self.micro_batch
        whole = len(some) // size * size or len(some)  # a small last batch would count as much as a full one
        with devices.autocast(self.config, self.device):
            averaging.renew_statistics(net, norms, self.lens.images(some[:whole], size))

    def _mend(self, index: int, rate: float, mean: "Mean", steps: int) -> None:
        """After an epoch in fp16, whose scaler skipped the steps that overflowed: raise Overflowed if there were more
        than a few, and recompute statistics of norms if an overflow has spoilt them.
        """
        if not self.scaler.is_enabled():
            return
        lost = mean.lost()
        if lost > max(FEW, steps // 20) or self.scaler.get_scale() < 1 or not _finite(self.net.parameters()):
            where = self._where(index, rate)
            raise Overflowed(f"fp16 overflows in {lost} of {steps} batches, or in the weights, in {where}")
        if lost:
            norms = averaging.training_norms(self.net)
            for net in {self.net, self.eval_network}:
                if not _finite(net.buffers()):
                    self._renew(net.eval(), norms, index)

    @property
    def eval_network(self) -> network.Network:
        """The network that is evaluated and saved: the averaged one if there is one."""
        return cast(network.Network, self.average.net if self.average and self.average.ready else self.net)

    def evaluate(self) -> Validation:
        """Evaluate the network on val."""
        if not self.val:
            return Validation()
        raw = self.lens.logits(self.eval_network, self.val)
        labels = self.data.labels(self.val)
        loss = self.eval_loss(raw, torch.from_numpy(labels).to(self.device)).mean().item()
        logits: np.ndarray = raw.cpu().numpy()
        return predict.judged(self.recipe, self.data, logits, labels, self.counts, loss)

    def check(self, index: int, rate: float, split: str, found: Scores | None) -> None:
        """Raise Diverged, with the circumstances, if the loss of a split is not finite."""
        if found is not None and not math.isfinite(found.loss):
            kind = Overflowed if self.scaler.is_enabled() else Diverged
            raise kind(f"{split} loss is {found.loss} in {self._where(index, rate)}")

    def check_metrics(self, index: int, val: Scores | None) -> None:
        """Raise Diverged if a metric that decides something is not finite."""
        known = val.metrics if val else {}
        for name in self.recipe.judges:
            if not math.isfinite(value := known.get(name, 0.0)):
                raise Diverged(f"{name} is {value} on val in epoch {index + 1}, and cannot be compared{_cause(name)}")

    def _where(self, index: int, rate: float) -> str:
        return f"epoch {index + 1} (lr {rate:.3g}; loss {losses.words(self.config.loss)})"

    def save(self, epoch: Epoch, logits: np.ndarray | None) -> None:
        """Record a finished epoch, and start a checkpoint if one is due; waits for that of the last epoch."""
        self.writer.check()
        if all(self.recipe.rank(epoch) > self.recipe.rank(past) for past in self.epochs):
            self.model = partial(self._model, epoch, logits)
            if self.val and self.config.selection != "last":  # later epochs may rank lower: copy this one
                copied = self.model()
                self.model = lambda: copied
        self.epochs.append(epoch)
        self.writer.epoch(epoch.seconds, self._copied, last=len(self.epochs) == self.config.epochs)

    def _copied(self) -> Callable[[], None]:
        """Return a function that writes the run as it is now."""
        model, self.model = self.model and self.model(), None
        return partial(run_state.write, self.folder, self._state(), model)

    def _model(self, epoch: Epoch, logits: np.ndarray | None) -> run_state.Model:
        notes = model_file.written(
            self.recipe,
            self.data,
            self.eval_network,
            epoch,
            self.counts,
            self.calibration or self._fitted_calibration(epoch),
            fitted_on=self.fitted_on,
            full_precision=self.full_precision,
        )
        return run_state.Model(devices.offload(self.eval_network.state_dict(), self.device), notes, logits)

    def _fitted_calibration(self, epoch: Epoch) -> Calibration:
        """Return the calibration with which val is evaluated after this epoch."""
        tau = self.config.posthoc_logit_adjustment.strength(epoch, self.recipe.metric)
        return Calibration(tau=tau, thresholds=epoch.thresholds, temperature=epoch.temperature)

    def _state(self) -> Callable[[], dict[str, Any]]:
        """Copy the state; after the last epoch without weights, which only a further epoch would need."""
        going = len(self.epochs) < self.config.epochs
        state: dict[str, Any] = {
            "recipe": self.recipe.model_dump_json(),
            "epochs": [epoch.model_dump_json() for epoch in self.epochs],
            "network": self.net.state_dict() if going else None,
            "optimizer": self.optimizer.state_dict() if going else None,
            "scaler": self.scaler.state_dict() if going else None,
            "average": self.average.state_dict() if self.average and going else None,
        }
        return devices.offload(state, self.device)

    def _network(self, state: dict[str, Any] | None) -> network.Network:
        if state is None:
            return network.build(self.config, self.data.sizes)
        if state["network"] is None:  # the run has finished
            return network.unloaded(self.config, self.data.sizes)
        return network.restored(self.config, self.data.sizes, state["network"], self.folder / run_state.STATE)

    def _restore(self, state: dict[str, Any]) -> list[Epoch]:
        if state["optimizer"]:  # else the run has finished
            self.optimizer.load_state_dict(state["optimizer"])
        if self.average and state["average"]:
            self.average.load_state_dict(state["average"])
        if state["scaler"]:  # empty if the run started in a format that needs none
            self.scaler.load_state_dict(state["scaler"])
        return [Epoch.model_validate_json(line) for line in state["epochs"]]
