"""The variation of metrics from one sample of images to the next. Uses numpy and scipy only.

This is the Bayesian bootstrap (Rubin 1981): each resample weights every image with a draw from an exponential
distribution, where Efron's (1979) weights it with the number of times it was drawn. Two properties decide in its
favour. An image carries all its answers, so categories that fail together vary together. And no weight is 0, so no
class vanishes; the weights within a class are distributed as if the class had been resampled by itself, in every
category at once: a mean over classes is resampled within classes.
"""

import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from trainers.data.table import Category
from trainers.evaluation.metrics import Columns, answers, average_precision, scores_of, truths

RESAMPLES = 1000
AT_ONCE = 20  # resamples whose weights are in memory
RANKED = ("mean_average_precision", "mean_category_score")  # metrics that depend on the order of scores
MAX_RANKED = 2 * 10**8  # resamples x images x classes up to which average precision is computed: about 15 s
Floats = NDArray[np.float64]


def resample(
    logits: np.ndarray, labels: np.ndarray, categories: Sequence[Category], *, ranked: bool = True
) -> np.ndarray:
    """Return every counted metric in each resample: [RESAMPLES] with one float32 field per metric.

    logits [N, sum C] float, labels [N, D] int; missing labels are ignored. The weights depend only on the labels:
    models on the same images share them, so differences of their fields are paired; models on different images are
    independent. Without `ranked`, or if it would take too long, metrics of average precision are left out.
    """
    columns = Columns.of(categories)
    several, width = columns.classes, sum(columns.sizes)
    members = _members(logits, labels, columns)
    ranked = ranked and RESAMPLES * len(labels) * len(several) <= MAX_RANKED
    found = []
    for weighed in weights(labels):
        counts = (members @ weighed).T.reshape(AT_ONCE, 3, width)
        precision = np.full((AT_ONCE, len(several)), np.nan)
        if ranked and len(several):
            precision = average_precision(logits[:, several], labels[:, columns.flags], weighed)
        pairs = zip(counts, precision, strict=True)
        found += [scores_of(count, columns, 0.0, precision=each).metrics for count, each in pairs]
    names = [name for name in found[0] if ranked or name not in RANKED]
    kind = np.dtype([(name, np.float32) for name in names])
    return np.array([tuple(one[name] for name in names) for one in found], dtype=kind)


def standard_errors(resamples: np.ndarray) -> dict[str, float]:
    """Return the standard deviation over the resamples, by metric."""
    return {
        name: round(float(resamples[name].std(ddof=1, dtype=np.float64)), 6) for name in resamples.dtype.names or ()
    }


def weights(labels: np.ndarray) -> Iterator[Floats]:
    """Yield the weights of the images in the next AT_ONCE resamples, [N, AT_ONCE]."""
    rng = np.random.default_rng(zlib.crc32(labels.astype(np.int32).tobytes()))
    for _ in range(0, RESAMPLES, AT_ONCE):
        yield rng.standard_exponential((len(labels), AT_ONCE))


def _members(logits: np.ndarray, labels: np.ndarray, columns: Columns) -> csr_matrix:
    """Return which images add to which counts of `metrics.counts_of`, [3 x sum C, N] of 0 and 1."""
    predicted, true = answers(logits, columns), truths(labels, columns)  # [N, S]
    images = np.broadcast_to(np.arange(len(labels))[:, None], true.shape)
    known, hit = true >= 0, predicted == true
    parts = [(true[known], images[known]), (predicted[known], images[known]), (true[hit], images[hit])]
    flags, above = labels[:, columns.flags], logits[:, columns.classes] > 0  # [N, M]
    chosen = [flags > 0, above & (flags >= 0), above & (flags > 0)]
    width = sum(columns.sizes)
    rows, places = [], []
    for part, ((classes, image), marks) in enumerate(zip(parts, chosen, strict=True)):
        place, column = np.nonzero(marks)
        rows += [classes + part * width, columns.classes[column] + part * width]
        places += [image, place]
    row, place = np.concatenate(rows), np.concatenate(places)
    return csr_matrix((np.ones(len(row)), (row, place)), shape=(3 * width, len(labels)))
