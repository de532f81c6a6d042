"""Examples of what a model takes: the job's own samples, by which it is traced, counted, checked and compared.

Numbers drawn at random stand in for them where the job gives no data: a model may decide by values that these never
have, and refuse what is no code of a category.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch

from plimsoll_job.load.data import Samples
from plimsoll_job.load.inputs import Signature
from plimsoll_job.load.text import ATTENTION_MASK

#: Samples of an example: two, so that what mixes them shows.
BATCH = 2
#: How many samples are kept: those of one batch, but of small ones no more and of large ones some batches.
MOST, FEW, MOST_BATCHES = 256, 32, 8

Tensors = tuple[torch.Tensor, ...]


def with_samples(signature: Signature, data: Samples | None) -> Signature:
    """Return the signature with some of the samples, or as it is where there are none; the same ones each time.

    They are drawn at random, but for those whose values reach furthest, and the shortest and the longest text: a model
    may treat these otherwise.
    """
    if data is None:
        return signature
    drawn = np.random.default_rng(0).permutation(len(data)).tolist()
    first, others = drawn[:BATCH], drawn[BATCH:]
    most = min(MOST, max(data.batch_size, min(FEW, MOST_BATCHES * data.batch_size)))
    chosen = list(dict.fromkeys([*first, *_furthest(data), *others]))[:most]
    rows = data.rows(chosen)
    return tuple(replace(one, samples=rows[one.name]) for one in signature)


def example_of(signature: Signature, batch: int = BATCH) -> Tensors:
    """Return a batch of samples, always the same for one signature; they repeat where there are fewer.

    Without samples: of random inputs, normal, or whole numbers of their range.
    """
    chance = torch.Generator().manual_seed(0)
    return tuple(
        torch.from_numpy(one.samples.take(range(batch), axis=0, mode="wrap"))
        if one.samples is not None
        else torch.randn((batch, *one.shape), generator=chance)
        if one.dtype == "float32"
        else torch.randint(one.values, (batch, *one.shape), generator=chance, dtype=getattr(torch, one.dtype))
        for one in signature
    )


def _furthest(data: Samples) -> Iterable[int]:
    """Yield the samples of the least and the largest extremes and means, and the shortest and the longest text."""
    for name, array in data.inputs.items():
        flat = array.reshape(len(array), -1)
        if array.dtype.kind == "f":
            measures = [flat.min(axis=1), flat.max(axis=1), flat.mean(axis=1)]
        else:
            measures = [flat.sum(axis=1)] if name == ATTENTION_MASK else []
        for measured in measures:
            yield from (int(measured.argmin()), int(measured.argmax()))
