"""The trace behind the groups: torch-pruning's dependency graph, with attention closed to it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from plimsoll_job.errors import UserError
from plimsoll_job.load.examples import example_of
from plimsoll_job.load.inputs import Signature
from plimsoll_job.techniques.prune.attention import attention_owners
from plimsoll_job.techniques.prune.dependency import tp
from plimsoll_job.techniques.prune.grouped import Graph
from plimsoll_job.techniques.prune.tied import couple_tied

#: Channels that one step of a trace may lead to; more of them are a trace that runs in circles.
MOST_CHANNELS = 200_000


class Closed(nn.Linear):
    """Stands for an attention while the graph is traced: its insides are none of the graph's."""


def trace(module: nn.Module, signature: Signature) -> tp.DependencyGraph:
    """Return torch-pruning's dependency graph; UserError for a model that it cannot follow.

    Each attention is a layer of type Closed in it.
    """
    frozen = [parameter for parameter in module.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        # The graph is traced by autograd: a frozen parameter would hide its layer.
        parameter.requires_grad_(True)
    # What stops the tracer on a module it does not know is of any type: its own checks, torch's, the module's code.
    try:
        with _attention_closed(module, signature), torch.enable_grad():
            graph = _without_autograd(Graph().build_dependency(module, example_of(signature), verbose=False))
            couple_tied(graph, module)
            return graph
    except Exception as error:
        raise UserError(
            f"spec.model.architecture: structured pruning cannot follow this model: {error}",
            reason="NotPrunable",
        ) from error
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _without_autograd(graph: tp.DependencyGraph) -> tp.DependencyGraph:
    """Return the graph without what autograd keeps: the weights as they were, beside those that a cut leaves."""
    for node in graph.module2node.values():
        node.grad_fn = None
        if "grad_fn" in vars(node.module):
            node.module.grad_fn = None
    return graph


@contextlib.contextmanager
def _attention_closed(module: nn.Module, signature: Signature) -> Iterator[None]:
    """Let each attention answer, for a while, by one layer of its widths; what it computes is not followed."""
    widths: dict[nn.Module, tuple[int, int]] = {}

    def measure(owner: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        hidden, answer = _first((*inputs, *named.values())), _first(output)
        if hidden.shape[:-1] == answer.shape[:-1]:
            widths[owner] = hidden.shape[-1], answer.shape[-1]

    owners = attention_owners(module)
    hooks = [owner.register_forward_hook(measure, with_kwargs=True) for owner in owners]
    try:
        with torch.no_grad():
            if owners:
                module(*example_of(signature))
    finally:
        for hook in hooks:
            hook.remove()
    for owner, (width_in, width_out) in widths.items():
        owner.closed = Closed(width_in, width_out)
        owner.forward = partial(_answer_closed, owner, owner.forward)
    try:
        yield
    finally:
        for owner in widths:
            del owner.forward, owner.closed


def _answer_closed(owner: nn.Module, forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    with torch.no_grad():
        output = forward(*inputs, **named)
    closed = owner.get_submodule("closed")(_first((*inputs, *named.values())))
    return (closed, *output[1:]) if isinstance(output, tuple) else closed


def _first(values: Any) -> torch.Tensor:
    """Return the first tensor of numbers."""
    candidates = values if isinstance(values, tuple) else (values,)
    return next(one for one in candidates if isinstance(one, torch.Tensor) and one.is_floating_point())


def _forgiving(update: Callable[..., None]) -> Callable[..., None]:
    """Leave a map of channels out where torch-pruning cannot make it, instead of giving up the whole model."""

    def update_if_known(*arguments: Any) -> None:
        # Where it infers no channels behind a reshape or concatenation, it divides by or adds up nothing.
        with contextlib.suppress(ZeroDivisionError, TypeError, IndexError):
            update(*arguments)

    return update_if_known


def _bounded(spread: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    def spread_within_bounds(mapping: object, channels: list[Any]) -> list[Any]:
        # Windows of pixels can lead a trace in circles, each of which multiplies the channels.
        if len(found := spread(mapping, channels)) > MOST_CHANNELS:
            raise IndexError("the trace runs in circles")
        return found

    return spread_within_bounds


index_mapping = tp.dependency.index_mapping
for _name in ("reshape", "concat", "split", "unbind", "expand", "slice"):
    _own = f"update_{_name}_index_mapping"
    setattr(index_mapping, _own, _forgiving(getattr(index_mapping, _own)))
index_mapping._FlattenIndexMapping.__call__ = _bounded(index_mapping._FlattenIndexMapping.__call__)
