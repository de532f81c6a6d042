"""What an amount is a share of: parameters, multiply-accumulates, or bytes of the exported float model."""

from __future__ import annotations

from torch import nn

from plimsoll_api.spec import AmountOf
from plimsoll_job.export.onnx_export import trace_onnx
from plimsoll_job.figures import count_macs, count_parameters
from plimsoll_job.load.inputs import Signature

#: What people read in sentences.
WORDS = {
    AmountOf.PARAMETERS: "parameters",
    AmountOf.MACS: "multiply-accumulates",
    AmountOf.BYTES: "bytes",
}


def measure(module: nn.Module, signature: Signature, of: AmountOf) -> int:
    """Return how many there are in the module."""
    if of is AmountOf.PARAMETERS:
        return count_parameters(module)
    if of is AmountOf.MACS:
        return count_macs(module, signature)
    return len(trace_onnx(module, signature))
