"""A model that came as an ONNX graph, as a module: it answers by ONNX Runtime, and holds no weights of torch."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import nn

from plimsoll_job.boundary import check_passing
from plimsoll_job.errors import UserError
from plimsoll_job.export.alike import difference, scale_of
from plimsoll_job.export.graph import signature
from plimsoll_job.export.lean import LeanModel, read_lean
from plimsoll_job.load.inputs import Input, Signature
from plimsoll_job.scratch import Scratch
from plimsoll_job.sessions import open_frugally

FIELD = "spec.model.architecture.onnx"
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
#: Of a sample's answers in batches of different sizes, as a share of the largest answer.
TOLERANCE = 1e-4
CHECKED_BATCHES = (1, 5)
#: Operators that draw numbers; Dropout does where it is told to train.
RANDOM = {
    "Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
}  # fmt: skip

Tensors = tuple[torch.Tensor, ...]


class Given:
    """The graph before it was changed, to be asked the same."""

    def __init__(self, model: LeanModel) -> None:
        self._scratch = Scratch()
        self._path = self._scratch.path / "given.onnx"
        model.write_apart(self._path)

    def answer(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the only output; what ONNX Runtime raises where it refuses the graph or the inputs."""
        (output,) = open_frugally(self._path).run(None, dict(inputs))
        return np.asarray(output)


class GraphModule(nn.Module):
    """Answers tensors by position, in the order of `input_names`, with the graph's only output.

    `batch` is the number of samples that the graph was made for where it said one; it takes any number now. `classes`
    are the names of the answer's columns where the graph told them. `given` is the graph of another operator set that
    it was made from.
    """

    def __init__(
        self,
        model: LeanModel,
        batch: int | None = None,
        classes: Sequence[str] = (),
        given: Given | None = None,
    ) -> None:
        super().__init__()
        self._given = given
        self._scratch = Scratch()
        self._path = self._scratch.path / "model.onnx"
        model.write(self._path)
        inputs, _ = signature(model.proto)
        self.shapes = {one.name: tuple(one.shape[1:]) for one in inputs}
        self.dtypes = {one.name: one.dtype for one in inputs}
        self.input_names = tuple(self.shapes)
        self.batch = batch
        self.classes = tuple(classes)
        self._session: Any = None

    def __deepcopy__(self, memo: object) -> Self:
        """Return the module itself: nothing of it changes."""
        return self

    def unopened(self) -> Self:
        """Return a module of the same graph that does not hold its weights until it is asked."""
        module = copy.copy(self)
        module._session = None
        return module

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return the output; RuntimeError where ONNX Runtime refuses the inputs."""
        if self._session is None:
            self._session = open_frugally(self._path)
        arrays = {name: tensor.numpy() for name, tensor in zip(self.input_names, inputs, strict=True)}
        # Its errors share no public base class.
        try:
            (output,) = self._session.run(None, arrays)
        except Exception as error:
            raise RuntimeError(str(error)) from error
        return torch.from_numpy(np.asarray(output))

    @property
    def most(self) -> int:
        """The samples of the largest batch that is checked."""
        return max(*CHECKED_BATCHES, self.batch or 1)

    @property
    def size_bytes(self) -> int:
        """The bytes of the graph with its weights."""
        return self._path.stat().st_size

    def lean(self) -> LeanModel:
        """Return the graph, to be changed, as long as this module is there."""
        return read_lean(self._path)

    def described(self, example: Tensors, *, any_length: bool) -> LeanModel:
        """Return the graph with an output of known width, of any batch, and of any length where the inputs are."""
        model = self.lean()
        shape = list(self(*example).shape)
        between = [None if any_length else size for size in shape[1:-1]]
        names = ["batch", *(size or "length" for size in between), shape[-1]]
        (output,) = model.proto.graph.output
        output.CopyFrom(helper.make_tensor_value_info(output.name, output.type.tensor_type.elem_type, names))
        return model

    def told(self) -> Signature | None:
        """Return the inputs as the graph alone tells them, None where it leaves a size open or takes tokens."""
        if any(size is None for shape in self.shapes.values() for size in shape) or len(self.shapes) > 1:
            return None
        ((name, shape),) = self.shapes.items()
        return (Input(name, tuple(size or 0 for size in shape)),) if self.dtypes[name] == "float32" else None

    def layers(self) -> set[str]:
        """Return the names of the nodes, and of what lies around them where names are paths."""
        names = [node.name for node in self.lean().proto.graph.node]
        return {name[:at] for name in names for at in (*_slashes(name), len(name)) if at}

    def check_as_given(self, example: Tensors) -> None:
        """UserError when the graph that it was made from does not answer alike; the example is of `most`."""
        if self._given is None:
            return
        rows = tuple(one[: self.batch or self.most] for one in example)
        answers = self(*rows).numpy()
        # Its errors share no public base class.
        try:
            wanted = self._given.answer({name: one.numpy() for name, one in zip(self.input_names, rows, strict=True)})
        except Exception as error:
            check_passing(error)
            raise self._old(f"ONNX Runtime cannot say what it answers as it is: {error}") from error
        if (problem := difference(wanted, answers, scale_of([wanted]))) is not None:
            raise self._old(f"brought to a newer one, it answers otherwise: {problem}")

    def _old(self, why: str) -> UserError:
        return UserError(
            f"{FIELD}: the model is of an old operator set; {why}; export it anew, in operator set 13 or later",
            reason="OldOpset",
        )

    def check_batches(self, example: Tensors) -> None:
        """UserError when a sample is answered otherwise again, or in a batch of another size.

        The example is of `most`.
        """
        sizes = sorted({*CHECKED_BATCHES, self.most})
        try:
            found = [
                torch.cat([self(*(one[at : at + size] for one in example)) for at in range(0, self.most, size)])
                for size in sizes
            ]
        except RuntimeError as error:
            raise self._fixed(str(error)) from error
        if differ(self(*example), self(*example)):
            random = {node.op_type for node in self.lean().proto.graph.node} & RANDOM
            by = f", by {', '.join(sorted(random))}" if random else ""
            raise UserError(
                f"{FIELD}: its answers are drawn at random{by}; a model that is measured answers alike each time: "
                "export it for inference",
                reason="AnswersAtRandom",
            )
        for size, given in zip(sizes, found, strict=True):
            if differ(found[0], given):
                raise self._fixed(f"a sample is answered otherwise in a batch of {size} than alone")

    def weights(self) -> Iterator[NDArray[Any]]:
        """Yield the floating-point constants."""
        model = self.lean()
        yield from (model.array(one) for one in model.proto.graph.initializer if one.data_type in FLOATS)

    def _fixed(self, why: str) -> UserError:
        made_for = f"for batches of {self.batch} only" if self.batch else "so that batches cannot be changed"
        return UserError(
            f"{FIELD}: the model was exported {made_for} ({why}); export it with a free batch axis, such as "
            "torch.onnx.export's dynamic_axes={name: {0: 'batch'}} for each input and output",
            reason="FixedBatch",
        )


def differ(one: torch.Tensor, other: torch.Tensor, tolerance: float = TOLERANCE) -> bool:
    """Tell whether tensors differ by more than rounding; where both are not finite they are alike."""
    if one.shape != other.shape:
        return True
    if not one.is_floating_point():
        return not torch.equal(one, other)
    finite = one.isfinite()
    if not torch.equal(finite, other.isfinite()):
        return True
    distance, largest = (one - other)[finite].abs(), one[finite].abs()
    return bool(finite.any()) and float(distance.max()) > tolerance * float(largest.max())


def _slashes(name: str) -> list[int]:
    return [at for at, letter in enumerate(name) if letter == "/"]
