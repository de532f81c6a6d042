"""Graphs of old operator sets, brought to one that can be quantized."""

from __future__ import annotations

import onnx
from onnx import helper, version_converter

from plimsoll_job.boundary import check_passing
from plimsoll_job.errors import UserError
from plimsoll_job.export.graph import opset
from plimsoll_job.load.architectures.graph import FIELD

#: The least operator set in which ONNX Runtime quantizes by channel.
LEAST_OPSET = 13
LEAST_IR_VERSION = 8
#: Until then Resize, and Upsample before it, knew one rule for where a value of the output lies in the input.
LAST_PLAIN_RESIZE = 10
PLAIN_RESIZE = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def is_old(model: onnx.ModelProto) -> bool:
    """Return whether `modern` makes another graph of the model; UserError where it names no operator set."""
    try:
        return opset(model) < LEAST_OPSET
    except StopIteration as error:
        raise UserError(f"{FIELD}: the model names no version of ONNX's operators") from error


def modern(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model in an operator set that can be quantized; UserError where its operators have no such form."""
    model.ir_version = max(model.ir_version, LEAST_IR_VERSION)
    if not is_old(model):
        return model
    version = opset(model)
    # What it raises where an operator has no newer form is of several types.
    try:
        converted = version_converter.convert_version(model, LEAST_OPSET)
    except Exception as error:
        check_passing(error)
        raise UserError(
            f"{FIELD}: the model is of operator set {version} and cannot be brought to {LEAST_OPSET}: {error}; export "
            "it anew",
            reason="OldOpset",
        ) from error
    for node in converted.graph.node:
        # The converter leaves the rule to its default, which is another one.
        if node.op_type == "Resize" and version <= LAST_PLAIN_RESIZE:
            node.attribute.extend(helper.make_attribute(name, value) for name, value in PLAIN_RESIZE.items())
    return converted
