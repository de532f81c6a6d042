"""A case as every contender finds it: a model, its data and a budget, in one folder. Needs torch and NumPy only."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import nn

#: The arrays of some samples by the names of the model's inputs, in the order of its arguments.
Arrays = Mapping[str, NDArray[Any]]
Answer = Callable[[Arrays], NDArray[Any]]
OPSET = 17
CALIBRATION_BATCH = 64
#: Of a sentence.
TOKENS = 64


@dataclass(frozen=True)
class Case:
    """One model with its data and one seed. `architecture` is as a plan has it; `task` tells the measure of quality."""

    folder: Path
    model: str
    seed: int
    threads: int
    task: str
    architecture: dict[str, Any]
    epochs: int
    batch_size: int
    learning_rate: float

    @classmethod
    def read(cls, folder: Path) -> Case:
        """Return the case that lies in the folder."""
        return cls(folder=folder, **json.loads((folder / "case.json").read_text()))

    @property
    def baseline(self) -> Path:
        """The model as it was given, in ONNX."""
        return self.folder / "baseline.onnx"

    def arrays(self, part: str) -> tuple[Arrays, NDArray[np.int64] | None]:
        """Return the inputs and labels of `train`, `calibration` or `test`."""
        with np.load(self.folder / f"{part}.npz", allow_pickle=False) as kept:
            inputs = {name: kept[name] for name in kept.files if name != "labels"}
            return inputs, kept["labels"] if "labels" in kept.files else None

    def build(self) -> nn.Module:
        """Return the model as it was given, in evaluation mode."""
        from safetensors.torch import load_file  # noqa: PLC0415

        if "huggingface" in self.architecture:
            return self._embedder()
        module = self.build_empty()
        module.load_state_dict(load_file(self.folder / "model.safetensors"))
        return module.eval()

    def build_empty(self) -> nn.Module:
        """Return the model with whatever weights its constructor gives."""
        if "torchvision" in self.architecture:
            from torchvision.models import get_model  # noqa: PLC0415

            settings = self.architecture["torchvision"]
            module: nn.Module = get_model(settings["name"], weights=None, num_classes=settings["classes"])
            return module
        from importlib import import_module  # noqa: PLC0415

        place, _, function = self.architecture["factory"].partition(":")
        made: nn.Module = getattr(import_module(place), function)()
        return made

    def _embedder(self) -> nn.Module:
        """Return the text model as it embeds: the mean over the tokens, of length 1."""
        from bench.engine.embedder import Embedder  # noqa: PLC0415

        return Embedder(self.folder / "model").eval()

    def fine_tune(self, module: nn.Module) -> nn.Module:
        """Return the module after the budget's epochs on the labels: AdamW with a cosine decay, as ours has it."""
        import torch  # noqa: PLC0415

        torch.manual_seed(self.seed)
        order = torch.Generator().manual_seed(self.seed)
        arrays, labels = self.arrays("train")
        inputs, targets = self.tensors(arrays), torch.from_numpy(labels)
        optimizer = torch.optim.AdamW(module.parameters(), lr=self.learning_rate, weight_decay=0.01, fused=True)
        steps = self.epochs * -(-len(targets) // self.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        module.train()
        for _ in range(self.epochs):
            for batch in torch.split(torch.randperm(len(targets), generator=order), self.batch_size):
                loss = torch.nn.functional.cross_entropy(module(*(one[batch] for one in inputs)), targets[batch])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
        return module.eval()

    def example(self) -> tuple[torch.Tensor, ...]:
        """Return two calibration samples, to trace a module with."""
        return self.tensors({name: array[:2] for name, array in self.arrays("calibration")[0].items()})

    def calibration_batches(self) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yield the calibration samples in order, as a module takes them."""
        arrays, _ = self.arrays("calibration")
        for at in range(0, len(next(iter(arrays.values()))), CALIBRATION_BATCH):
            yield self.tensors({name: array[at : at + CALIBRATION_BATCH] for name, array in arrays.items()})

    def export(self, module: nn.Module, file: Path) -> None:
        """Write the module in ONNX with a free batch."""
        import torch  # noqa: PLC0415

        names = list(self.arrays("calibration")[0])
        with warnings.catch_warnings():
            # The exporter is old, and says so at each use; docs/decisions/0020 tells why it is in use.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module.eval(),
                self.example(),
                file,
                dynamo=False,
                input_names=names,
                output_names=["answers"],
                dynamic_axes={name: {0: "batch"} for name in (*names, "answers")},
                opset_version=OPSET,
            )

    @staticmethod
    def tensors(arrays: Arrays) -> tuple[torch.Tensor, ...]:
        """Return the arrays as a module takes them."""
        import torch  # noqa: PLC0415

        return tuple(torch.from_numpy(array) for array in arrays.values())
