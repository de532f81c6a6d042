"""Quantization: weights and activations in a smaller number format."""

from __future__ import annotations

from plimsoll_api.spec import Quantize, QuantizeScheme
from plimsoll_job.techniques.quantize.int8_static import quantize_int8_static
from plimsoll_job.techniques.shape import Applied, Bench, Candidate

SCHEMES = {QuantizeScheme.INT8_STATIC: quantize_int8_static}


def apply(settings: Quantize, candidate: Candidate, bench: Bench) -> Applied:
    """Return the candidate as an ONNX graph in the scheme's number format."""
    return SCHEMES[settings.scheme](candidate, bench)
