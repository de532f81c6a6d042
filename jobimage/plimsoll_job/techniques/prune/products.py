"""Rules of products of matrices, convolutions and normalisation: where channels meet weights."""

from __future__ import annotations

from typing import Any

import torch

from plimsoll_job.techniques.prune.labels import Held, along, spanned, unsqueezed
from plimsoll_job.techniques.prune.run import NotFollowedError, Run, met_at, name_of
from plimsoll_job.techniques.prune.sums import normalised, reduce_held


def multiply(run: Run, func: Any, args: Any, kwargs: Any, outputs: list[torch.Tensor]) -> list[Held]:
    """Products of matrices: each number of the one meets one of the other, and those along an axis are summed up."""
    name = name_of(func)
    added, (left, right) = (args[0], args[1:3]) if name in {"addmm", "baddbmm", "addmv"} else (None, args[:2])
    (output,) = outputs
    of_vector = right.ndim == 1
    one, other = run.held(left), run.held(right)
    if of_vector:
        other, right_shape = unsqueezed(other, 1), (right.shape[0], 1)
    else:
        right_shape = tuple(right.shape)
    if left.ndim == 1:
        raise NotFollowedError
    # [.., M, K] and [.., K, N] as [.., M, K, N].
    ndim = left.ndim
    wide = (*left.shape, right_shape[-1])
    pairs = [
        (unsqueezed(one, ndim), (*left.shape, 1)),
        (unsqueezed(other, ndim - 2), (*right_shape[:-2], 1, *right_shape[-2:])),
    ]
    met = run.flow.meet(pairs, wide, met_at(run, func))
    product = reduce_held(run, met, frozenset({ndim - 1}), keepdim=False)
    if of_vector:
        product = Held(tuple(labels.squeeze(-1) for labels in product.labels), frozenset(), product.of_input)
    if one.of_input and other.of_input:
        run.flow.attended += [*one.labels, *other.labels]
        run.flow.heads += [labels for labels in product.labels if 0 in spanned(labels) and ndim > 2]
    if added is None:
        return [product]
    return [run.flow.meet([(product, output.shape), (run.held(added), added.shape)], output.shape, met_at(run, func))]


def convolve(run: Run, func: Any, args: Any, kwargs: Any, outputs: list[torch.Tensor]) -> list[Held]:
    """Each channel that is read meets one of the weight, each that is written one of the bias."""
    images, weight, bias = args[:3]
    transposed, groups = args[6], args[8]
    (output,) = outputs
    flow = run.flow
    read_axis, written_axis = (0, 1) if transposed else (1, 0)
    read = _vector(run, images, 1, f"a convolution in {run.at} runs along them")
    reads = _vector(run, weight, read_axis, f"they are kernels in {run.at}")
    written = _vector(run, weight, written_axis, f"they are kernels in {run.at}")
    why = met_at(run, func)
    if groups == 1:
        _couple(run, read, reads, why)
    else:
        # Labels of what a group reads and writes, of which those that are there go as a whole.
        width = output.shape[1] // groups
        if transposed:
            _couple(run, read, reads, why)
            if written is not None:
                flow.atoms.keep(written, f"a convolution in {run.at} writes them in groups")
            _in_groups(run, read, groups, why)
            written = None if read is None else read.view(groups, -1)[:, :1].expand(-1, width).flatten()
        else:
            if reads is not None:
                flow.atoms.keep(reads, f"a convolution in {run.at} reads them in groups")
            _in_groups(run, written, groups, why)
            if written is not None and read is not None:
                flow.atoms.join(read.view(groups, -1)[:, :1], written.view(groups, -1), why)
                _in_groups(run, read, groups, why)
            elif written is not None or read is not None:
                flow.atoms.keep(written if written is not None else read, why)  # type: ignore[arg-type]
    labels = () if written is None else (along(written, 1, output.ndim),)
    product = Held(labels, frozenset(), True)
    if bias is None:
        return [product]
    lifted = Held(tuple(along(one, 1, output.ndim) for one in run.held(bias).labels))
    return [flow.meet([(product, output.shape), (lifted, _at(bias.shape[0], 1, output.ndim))], output.shape, why)]


def _at(size: int, axis: int, ndim: int) -> tuple[int, ...]:
    return tuple(size if at == axis else 1 for at in range(ndim))


def _vector(run: Run, tensor: torch.Tensor, axis: int, why: str) -> torch.Tensor | None:
    """Return the labels [n] along an axis of a tensor, all along others being held; none where nothing is there."""
    found = None
    for labels in run.held(tensor).labels:
        if axis not in spanned(labels):
            if tensor.ndim > axis and not run.held(tensor).of_input:
                continue
            run.flow.hold(labels, spanned(labels), why)
            continue
        kept = run.flow.hold(labels, spanned(labels) - {axis}, why)
        found = None if kept is None else kept.flatten()
    return found


def _couple(run: Run, read: torch.Tensor | None, reads: torch.Tensor | None, why: str) -> None:
    if read is not None and reads is not None:
        run.flow.atoms.join(read, reads, why)
    elif read is not None or reads is not None:
        run.flow.atoms.keep(read if read is not None else reads, why)  # type: ignore[arg-type]


def _in_groups(run: Run, labels: torch.Tensor | None, groups: int, why: str) -> None:
    """Let labels [n] go in as many groups as there are."""
    if labels is not None:
        rows = labels.view(groups, -1)
        run.flow.atoms.join(rows.amax(1, keepdim=True), rows, why)


def batch_norm(run: Run, func: Any, args: Any, kwargs: Any, outputs: list[torch.Tensor]) -> list[Held]:
    """Each channel meets its own numbers."""
    images = args[0]
    pairs = [(run.held(images), tuple(images.shape))]
    pairs += [_of_channels(run, one, images.ndim) for one in args[1:5] if isinstance(one, torch.Tensor)]
    met = run.flow.meet(pairs, images.shape, met_at(run, func))
    return [met, *[Held(of_input=True) for _ in outputs[1:]]]


def _of_channels(run: Run, vector: torch.Tensor, ndim: int) -> tuple[Held, tuple[int, ...]]:
    held = run.held(vector)
    free = frozenset(range(ndim)) if 0 in held.free else frozenset()
    return Held(tuple(along(one, 1, ndim) for one in held.labels), free), _at(vector.shape[0], 1, ndim)


def layer_norm(run: Run, func: Any, args: Any, kwargs: Any, outputs: list[torch.Tensor]) -> list[Held]:
    """All along the last axes is compared, and meets numbers of its own."""
    rows, shape = args[:2]
    axes = frozenset(range(rows.ndim - len(shape), rows.ndim))
    held = normalised(run, run.held(rows), axes)
    pairs = [(held, tuple(rows.shape))]
    pairs += [(run.held(one), tuple(one.shape)) for one in args[2:4] if isinstance(one, torch.Tensor)]
    met = run.flow.meet(pairs, rows.shape, met_at(run, func))
    return [met, *[Held(of_input=True) for _ in outputs[1:]]]


def group_norm(run: Run, func: Any, args: Any, kwargs: Any, outputs: list[torch.Tensor]) -> list[Held]:
    """Channels are compared in groups, and meet numbers of their own."""
    images, groups = args[0], args[6]
    channels = _vector(run, images, 1, f"they are normalised in parts in {run.at}")
    if channels is not None and groups > 1:
        run.flow.grouped.append((channels.view(groups, -1), run.layer))
    held = Held(() if channels is None else (along(channels, 1, images.ndim),), of_input=run.held(images).of_input)
    pairs = [(held, tuple(images.shape))]
    pairs += [_of_channels(run, one, images.ndim) for one in args[1:3] if isinstance(one, torch.Tensor)]
    met = run.flow.meet(pairs, images.shape, met_at(run, func))
    return [met, *[Held(of_input=True) for _ in outputs[1:]]]
