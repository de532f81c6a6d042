"""Gradients of a model's answers on calibration data, a few samples at a time, and where they end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves

from plimsoll_job.boundary import boundary
from plimsoll_job.errors import UserError
from plimsoll_job.techniques.observe import Batch, Batches, Mask, counted_answers

#: Samples whose answers are derived at once: what autograd holds grows with them, and the noise of the signs.
AT_ONCE = 4
#: Operations whose gradient is 0 everywhere, whatever they answer.
STEPS = {"round", "floor", "ceil", "trunc", "fix", "sign", "sgn", "heaviside", "frac", "floor_divide"}
OTHERWISE = "choose another criterion"

#: Hears a weight, and the gradient by it.
Hear = Callable[[torch.Tensor, torch.Tensor], None]


def parts_of(batches: Batches) -> Iterator[tuple[Batch, Mask]]:
    """Yield a few samples at a time, with their mask."""
    for batch, mask in batches.masked():
        for start in range(0, len(batch[0]), AT_ONCE):
            chosen = slice(start, start + AT_ONCE)
            yield tuple(one[chosen] for one in batch), None if mask is None else mask[chosen]


def derive(
    module: nn.Module, weights: Sequence[nn.Parameter], hear: Hear, batches: Batches, *, seed: int, spec_field: str
) -> Iterator[None]:
    """Hand `hear` the gradient by each weight of the answers that count, with random signs; yield after each part.

    A part is a few samples. Of weights that answers do not follow from none comes; one gradient is held at a time.
    UserError where answers cannot be derived.
    """
    chance = torch.Generator().manual_seed(seed)
    with _derived(weights, hear), _recurrence(module, batches.device):
        for batch, mask in parts_of(batches):
            with boundary(spec_field, f"the model's answers cannot be derived, as Taylor does; {OTHERWISE}"):
                answers = counted_answers(module(*batch), mask)
                if not answers.is_floating_point():
                    raise UserError(
                        f"{spec_field}: Taylor derives the model's answers, which are of {answers.dtype}; let the "
                        f"model answer scores, or {OTHERWISE}"
                    )
                if not answers.requires_grad:
                    raise UserError(
                        f"{spec_field}: Taylor derives the model's answers, and they have no gradient: "
                        f"{ending_of(module, batch, weights)}; {OTHERWISE}"
                    )
                signs = torch.randint(0, 2, answers.shape, generator=chance).to(answers) * 2 - 1
                torch.autograd.backward((answers * signs).sum(), inputs=weights)
            yield


def ending_of(module: nn.Module, batch: Batch, weights: Sequence[nn.Parameter]) -> str:
    """Return in words at which operation of which layer gradients end first, where it is seen."""
    watch = _Endings(module)
    with _derived(weights), watch.layers(), watch:
        module(*batch)
    return watch.first or "it is not seen at which operation they end"


@contextmanager
def _derived(weights: Sequence[nn.Parameter], hear: Hear | None = None) -> Iterator[None]:
    """Let the weights have gradients meanwhile, also those that training is not to change; they go once heard."""
    were = [(weight.requires_grad, weight.grad) for weight in weights]

    def tell(weight: torch.Tensor) -> None:
        gradient, weight.grad = weight.grad, None
        if hear is not None and gradient is not None:
            hear(weight, gradient)

    hooks = []
    for weight in weights:
        weight.grad = None
        hooks.append(weight.requires_grad_(True).register_post_accumulate_grad_hook(tell))  # type: ignore[no-untyped-call]
    try:
        with torch.enable_grad():
            yield
    finally:
        for hook, weight, (was_derived, gradient) in zip(hooks, weights, were, strict=True):
            hook.remove()
            weight.requires_grad_(was_derived)
            weight.grad = gradient


@contextmanager
def _recurrence(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Have recurrent layers computed by torch itself on a GPU: cuDNN derives them in training only."""
    recurs = any(isinstance(layer, nn.RNNBase) for layer in module.modules())
    was = torch.backends.cudnn.enabled
    if recurs and device.type == "cuda":
        torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = was


class _Endings(TorchFunctionMode):
    """Watches operations for the first that answers numbers without a gradient to what it read, which had one."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.first = ""
        self._module = module
        self._called: list[str] = []

    @contextmanager
    def layers(self) -> Iterator[None]:
        """Know which layer is called."""
        hooks = []
        for name, layer in self._module.named_modules():
            told = f"{name} ({type(layer).__name__})" if name else "the model"
            hooks.append(layer.register_forward_pre_hook(lambda *_, told=told: self._called.append(told)))
            hooks.append(layer.register_forward_hook(lambda *_: self._called.pop() and None, always_call=True))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and look at what it answers."""
        answer = func(*args, **(kwargs or {}))
        name = (resolve_name(func) or getattr(func, "__name__", str(func))).removeprefix("torch.")
        if not self.first and any(_has_gradient(one) for one in tree_leaves((args, kwargs))):
            made = [one for one in tree_leaves(answer) if isinstance(one, torch.Tensor)]
            ends = bool(made) and not any(map(_has_gradient, made))
            if ends or name.rpartition(".")[2].strip("_") in STEPS:
                self.first = f"they end at {name} in {self._called[-1] if self._called else 'the model'}"
        return answer


def _has_gradient(one: Any) -> bool:
    return isinstance(one, torch.Tensor) and one.requires_grad
