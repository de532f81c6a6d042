"""The table of schemes: what each does to a graph, to which layers, and what it needs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial

from plimsoll_api.artifact import ProcessorFeature
from plimsoll_api.spec import Compute, QuantizeScheme
from plimsoll_api.steps.quantize import FULL_WEIGHT_BITS, INT8, SAFE_WEIGHT_BITS
from plimsoll_job.export.lean import LeanModel
from plimsoll_job.processor import lacking
from plimsoll_job.sessions import serving_gpu
from plimsoll_job.techniques.quantize.float8 import to_float8
from plimsoll_job.techniques.quantize.float16_compute import to_float16_compute
from plimsoll_job.techniques.quantize.float_model import FloatModel
from plimsoll_job.techniques.quantize.half import to_bfloat16, to_float16
from plimsoll_job.techniques.quantize.int4 import to_int4
from plimsoll_job.techniques.quantize.int8_dynamic import to_int8_dynamic
from plimsoll_job.techniques.quantize.int8_static import to_int8_static
from plimsoll_job.techniques.quantize.layers import CONVOLUTIONS, LINEAR, RECURRENT, Layer
from plimsoll_job.techniques.quantize.recurrent import compute_recurrent, store_recurrent

EMBEDDINGS = frozenset({"Gather"})
TRAINED = CONVOLUTIONS | LINEAR | EMBEDDINGS
ALL = TRAINED | RECURRENT


@dataclass(frozen=True)
class Scheme:
    """One number format: how a graph gets it, for layers of which operators, what processors compute in, and needs.

    `quantize` takes the float model, the layers that are to change and the ranges of activations, where the scheme has
    such, and returns the changed model. `missing` tells why the scheme cannot work on this machine.
    """

    quantize: Callable[..., LeanModel]
    operators: frozenset[str]
    computes: str
    why_others_stay: str = ""
    #: Whether processors compute in integers.
    of_integers: bool = False
    #: What GPUs compute in, for which ONNX Runtime has no kernels of integers.
    on_gpu: str = "float32"
    #: Whether layers of it are computed by the processor, also where there is a GPU.
    leaves_gpu: bool = False
    missing: Callable[[], str | None] = lambda: None
    #: Whether it also changes what lies between layers.
    between: bool = False
    #: Whether the model is trained for it first.
    trains: bool = False
    #: Bits of the weights that meet activations of 8 bits, where there are such.
    weight_bits: int | None = None
    #: What gives the format to recurrent layers in a model whose others have it; these are not handed to `quantize`.
    recurrent: Callable[[LeanModel, Collection[Layer], int], None] | None = None

    def convert(self, model: FloatModel, layers: Collection[Layer], ranges: bytes | None) -> LeanModel:
        """Return the model with these layers in the format."""
        if self.recurrent is None:
            return self.quantize(model, layers, ranges)
        others = [layer for layer in layers if layer.operator not in RECURRENT]
        changed = self.quantize(model, others, ranges) if others else model.lean()
        if recurrent := [layer for layer in layers if layer.operator in RECURRENT]:
            self.recurrent(changed, recurrent, self.weight_bits or SAFE_WEIGHT_BITS)
        return changed

    @property
    def arithmetic(self) -> str:
        """What is computed in here."""
        return self.computes if serving_gpu() is None else self.on_gpu

    def why_kept(self, layer: Layer) -> str | None:
        """Return why the layer does not get the format, None when it does."""
        if layer.operator not in self.operators:
            return self.why_others_stay
        # It takes a scale for each output of one group, and has more outputs.
        if self.of_integers and layer.operator == "ConvTranspose" and layer.grouped:
            return "ONNX Runtime has no int8 transposed convolution in groups"
        # Its kernels have one scale a column for the whole stack, and fail at the first run.
        return "ONNX Runtime has no int8 product of stacked matrices" if self.of_integers and layer.stacked else None


def _missing_for_full_weights() -> str | None:
    if not lacking([ProcessorFeature.VNNI]):
        return None
    return (
        f"with weightBits {FULL_WEIGHT_BITS} needs a processor with VNNI, and sums saturate on this one; leave "
        "weightBits out, or ask for such a node in spec.runtime"
    )


def _missing_for_float8() -> str | None:
    if serving_gpu() is not None:
        return None
    return "needs a GPU, and ONNX Runtime here finds none; Int8Static takes as many bytes on a processor"


_STATIC = Scheme(
    to_int8_static,
    ALL,
    "int8",
    of_integers=True,
    weight_bits=SAFE_WEIGHT_BITS,
    recurrent=store_recurrent,
    between=True,
)
SCHEMES: Mapping[QuantizeScheme, Scheme] = {
    QuantizeScheme.FLOAT16: Scheme(to_float16, ALL, "float32"),
    QuantizeScheme.BFLOAT16: Scheme(to_bfloat16, ALL, "float32"),
    QuantizeScheme.INT8_DYNAMIC: Scheme(
        to_int8_dynamic,
        LINEAR | EMBEDDINGS | RECURRENT,
        "int8 in linear layers",
        "ONNX Runtime is slow at it in int8",
        of_integers=True,
        on_gpu="int8 in linear layers, by the processor",
        leaves_gpu=True,
        weight_bits=SAFE_WEIGHT_BITS,
        recurrent=compute_recurrent,
    ),
    QuantizeScheme.INT8_STATIC: _STATIC,
    QuantizeScheme.INT8_QAT: replace(
        _STATIC, operators=TRAINED, why_others_stay="it is not trained", recurrent=None, trains=True
    ),
    QuantizeScheme.INT4_WEIGHT_ONLY: Scheme(
        to_int4, LINEAR, "int8 by blocks in linear layers", "there is no kernel for it in 4 bits", of_integers=True
    ),
    QuantizeScheme.FLOAT8: Scheme(
        to_float8,
        TRAINED,
        "float16",
        "there is no kernel for it",
        on_gpu="float16",
        missing=_missing_for_float8,
        between=True,
    ),
}
_FLOAT16_COMPUTE = Scheme(
    to_float16_compute, ALL, "float16, which processors are slow at", on_gpu="float16", between=True
)


def scheme_of(name: QuantizeScheme, compute: Compute | None = None, weight_bits: int | None = None) -> Scheme:
    """Return the scheme of the name that computes as asked for, by weights of so many bits."""
    if compute is Compute.FLOAT16:
        return _FLOAT16_COMPUTE
    scheme = SCHEMES[name]
    if name not in INT8 or weight_bits != FULL_WEIGHT_BITS:
        return scheme
    return replace(
        scheme,
        quantize=partial(scheme.quantize, weight_bits=weight_bits),
        missing=_missing_for_full_weights,
        weight_bits=weight_bits,
    )
