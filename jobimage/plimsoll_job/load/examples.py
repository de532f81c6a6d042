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
from plimsoll_job.load.inputs import BATCH, Arrays, Signature
from plimsoll_job.load.text import ATTENTION_MASK

#: Samples that are asked alone at least, and those of the least batch of several; neither is that of a trace.
ALONE, TOGETHER = 16, 5
LEAST_TOKENS = 2
#: Batches by which something is compared once it holds for the example.
FURTHER = 3
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


def samples_in(signature: Signature) -> int:
    """Return of how many of the job's own samples the examples are, 0 where they are random numbers."""
    return min((0 if one.samples is None else len(one.samples) for one in signature), default=0)


def example_of(signature: Signature, batch: int | None = None) -> Tensors:
    """Return a batch of samples, always the same for one signature, of its own size by default.

    They repeat where there are fewer. Without samples: of random inputs, normal, or whole numbers of their range.
    """
    return _batch(signature, batch or max((one.example for one in signature), default=BATCH), 0)


def further_examples(signature: Signature) -> list[Tensors]:
    """Return other batches of the example's size, always the same: of samples that it has not, as far as there are."""
    size, known = max((one.example for one in signature), default=BATCH), samples_in(signature)
    most = FURTHER if known == 0 else min(FURTHER, -(-known // size) - 1)
    return [_batch(signature, size, number) for number in range(1, most + 1)]


def _batch(signature: Signature, batch: int, number: int) -> Tensors:
    chance, rows = torch.Generator().manual_seed(number), range(number * batch, (number + 1) * batch)
    return tuple(
        torch.from_numpy(one.samples.take(rows, axis=0, mode="wrap"))
        if one.samples is not None
        else torch.randn((batch, *one.shape), generator=chance)
        if one.dtype == "float32"
        else torch.randint(one.values, (batch, *one.shape), generator=chance, dtype=getattr(torch, one.dtype))
        for one in signature
    )


def with_larger_example(signature: Signature) -> Signature:
    """Return the signature whose examples are all of its samples: for models that treat some otherwise than others."""
    return tuple(replace(one, example=samples_in(signature) or FEW) for one in signature)


def batches_of(signature: Signature) -> list[Arrays]:
    """Return the batches in which a model and what was made of it are to answer alike.

    Half of the samples are asked alone, each text at its own length; the others together, five at first, and these at
    half the length too. Few samples are asked both ways. Without samples one and five of random numbers are.
    """
    known = samples_in(signature)
    given = example_of(signature, known or TOGETHER)
    rows = {one.name: tensor.numpy() for one, tensor in zip(signature, given, strict=True)}
    count, any_length = len(given[0]), any(one.any_length for one in signature)
    alone = max(count // 2, min(count, ALONE if known else 1))
    others = [at % count for at in range(count - max(count - alone, min(count, ALONE), TOGETHER), count)]
    size = max(TOGETHER, Samples(rows, None, "").batch_size)
    starts = range(TOGETHER, len(others), size)
    parts = [[at] for at in range(alone)] + [others[:TOGETHER], *(others[start : start + size] for start in starts)]
    batches: list[Arrays] = [{name: array[part] for name, array in rows.items()} for part in parts]
    if any_length:
        halves = [_narrowed(batches[at], 0.5) for at in (0, alone)]
        batches = [*(_narrowed(batch) for batch in batches[:alone]), *batches[alone:], *halves]
    return batches


def _narrowed(batch: Arrays, share: float = 1) -> Arrays:
    """Return the batch without tokens that are padding in all of its texts, and of no more than that share of all."""
    length = next(iter(batch.values())).shape[1]
    mask = batch.get(ATTENTION_MASK, np.ones((1, length)))
    used = np.flatnonzero(mask.any(axis=0)) if mask.any() else np.arange(length)
    width = min(length, max(LEAST_TOKENS, min(int(used[-1] - used[0]) + 1, int(length * share))))
    # Tokenizers pad on either side, and each text is to keep some of its tokens.
    first = used[-1] + 1 - width if mask[:, 0].sum() < mask[:, -1].sum() else used[0]
    first = int(np.clip(first, 0, length - width))
    return {name: array[:, first : first + width] for name, array in batch.items()}


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
