"""torch-pruning by itself: whole channels by its group norm, in one shot, then fine-tuned on the labels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.engine.case import Case

STEPS = 200


def prune(case: Case, folder: Path, *, amount: float, together: bool = False) -> None:
    """Delete channels, of each layer the same share or of all layers together, until the amount is gone."""
    import torch  # noqa: PLC0415
    import torch_pruning as tp  # noqa: PLC0415

    module, example = case.build(), case.example()
    before = sum(parameter.numel() for parameter in module.parameters())
    classifier = [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)][-1]
    pruner = tp.pruner.BasePruner(
        module,
        example,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=together,
        pruning_ratio=0.98,
        max_pruning_ratio=0.98,
        iterative_steps=STEPS,
        ignored_layers=[classifier],
    )
    for _ in range(STEPS):
        pruner.step()
        if sum(parameter.numel() for parameter in module.parameters()) <= (1 - amount) * before:
            break
    case.export(case.fine_tune(module), folder / "model.onnx")


VARIANTS = {
    **{f"{amount:.0%}, fine-tuned": partial(prune, amount=amount) for amount in (0.3, 0.73, 0.88)},
    "73% of all layers together, fine-tuned": partial(prune, amount=0.73, together=True),
}
#: Vectors have no labels to train on.
EMBEDDING_VARIANTS: dict[str, Callable[[Case, Path], None]] = {}
