"""Follows what depends on which channels through one run of a module, operation by operation.

Whatever layers a module has and however its code is written, it runs as operations of torch's ATen, each of which says
exactly what becomes of the axes of its inputs. Operations that are not known keep whole what reaches them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from plimsoll_job.techniques.prune.flow import Call, Flow
from plimsoll_job.techniques.prune.labels import spanned
from plimsoll_job.techniques.prune.rules import outcome
from plimsoll_job.techniques.prune.run import Run, name_of

#: What torch does or leaves out as tensors happen to lie in memory.
LAYS_OUT = frozenset({
    "clone", "view", "_unsafe_view", "reshape", "_reshape_alias", "expand", "alias", "detach", "contiguous",
    "as_strided", "_to_copy",
})  # fmt: skip


class Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode of torch that sees every operation, and does not import the compiler for that, which takes seconds."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class Following(Mode):  # type: ignore[no-untyped-call]
    """Takes in every operation while it is active."""

    def __init__(self, run: Run) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.run = run

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and take in what it does."""
        kwargs, run = kwargs or {}, self.run
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        run.given = inputs = tuple((tuple(one.shape), run.held(one)) for one in tensors)
        output = func(*args, **kwargs)
        outputs = [one for one in tree_leaves(output) if isinstance(one, torch.Tensor)]
        found = outcome(run, func, args, kwargs, outputs)
        for one, held in zip(outputs, found, strict=True):
            run.keep(one, held)
            run.flow.blocks += [labels for labels in held.labels if len(spanned(labels)) > 1]
        # Normalisation also tells means and the like, which nobody reads.
        count = 1 if "norm" in name_of(func) else len(outputs)
        made = tuple((tuple(one.shape), held) for one, held in list(zip(outputs, found, strict=True))[:count])
        run.flow.calls.append(Call(name_of(func), run.layer, inputs, made))
        return output


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Have attention, recurrent layers and normalisation run as the single operations that they are made of."""
    onednn: Any = torch.backends.mkldnn
    was_fast, was_enabled = torch.backends.mha.get_fastpath_enabled(), onednn.enabled
    torch.backends.mha.set_fastpath_enabled(False)
    onednn.enabled = False
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was_fast)
        onednn.enabled = was_enabled


@contextlib.contextmanager
def telling_layers(module: nn.Module, told: Any) -> Iterator[None]:
    """Keep the name of the layer that is being called in `layer` of what is told."""
    stack: list[str] = []

    def enter(name: str) -> Any:
        def hook(*_: Any) -> None:
            stack.append(told.layer)
            told.layer = name

        return hook

    def leave(*_: Any) -> None:
        told.layer = stack.pop()

    handles = []
    for name, layer in module.named_modules():
        handles += [layer.register_forward_pre_hook(enter(name)), layer.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def follow(module: nn.Module, example: Sequence[torch.Tensor]) -> Flow:
    """Return what one run of the module tells.

    It is not the first: what layers compute once and keep would be among its operations, and in no later run.
    """
    with plainly():
        module(*example)
    with computing_anew(module) as kept:
        run = Run(module, example)
        with plainly(), telling_layers(module, run), Following(run):
            answers = module(*example)
    flow = run.flow
    flow.kept = tuple(kept)
    for answer in tree_leaves(answers):
        if isinstance(answer, torch.Tensor):
            for labels in run.held(answer).labels:
                flow.atoms.keep(labels, "they are the model's answers")
    _join_recurrent(module, flow)
    return flow


@contextlib.contextmanager
def computing_anew(module: nn.Module) -> Iterator[list[tuple[str, str]]]:
    """Empty the dictionaries in which layers keep tensors that they computed; give those that are filled again after.

    Whatever else is in such a dictionary is there again after.
    """
    found = {
        (name, attribute): value
        for name, layer in module.named_modules()
        for attribute, value in vars(layer).items()
        if not attribute.startswith("_")
        and isinstance(value, dict)
        and all(isinstance(one, torch.Tensor) for one in value.values())
    }
    before = {place: dict(value) for place, value in found.items()}
    for value in found.values():
        value.clear()
    kept: list[tuple[str, str]] = []
    try:
        yield kept
    finally:
        for place, value in found.items():
            if value.keys() >= before[place].keys() and value:
                kept.append(place)
            else:
                value.update(before[place])


def _join_recurrent(module: nn.Module, flow: Flow) -> None:
    """Let the hidden units of all layers and directions of a recurrent layer go together: they are as many."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.RNNBase):
            found = [
                labels
                for (owner, tensor, axis), labels in flow.weights.items()
                if owner == name and tensor.startswith("weight_hh") and axis == 1
            ]
            for labels in found:
                if layer.proj_size:
                    flow.atoms.keep(labels, f"{name} projects what its hidden units answer")
                else:
                    flow.atoms.join(found[0], labels)
