"""The one output of an ONNX graph that is measured, of several that it may have, and what becomes of it as a map.

scikit-learn's converters give a label beside the probabilities, and those as a map for each sample (ZipMap), which is
no tensor: the tensor that the maps are made of is the answer then.
"""

from __future__ import annotations

import difflib

import onnx
from onnx import TensorProto, helper

from plimsoll_job.errors import UserError
from plimsoll_job.export.graph import NUMPY_NAMES, rename
from plimsoll_job.export.lean import LeanModel
from plimsoll_job.load.architectures.graph import FIELD

OUTPUT_FIELD = f"{FIELD}.output"
ZIP_MAP = "ZipMap"


def choose_output(model: LeanModel, wanted: str | None) -> tuple[str, ...]:
    """Leave the output of that name alone, with what it is computed of; return its classes where a map named them.

    UserError when the graph has no such output, or several and none is named.
    """
    graph = model.proto.graph
    outputs = {value.name: value for value in graph.output}
    told = ", ".join(f"{name} ({kind_of(value)})" for name, value in outputs.items())
    if wanted is None and len(outputs) > 1:
        raise UserError(f"{OUTPUT_FIELD}: the graph has several outputs: {told}; name the one that answers")
    name = wanted or next(iter(outputs), "")
    if name not in outputs:
        near = difflib.get_close_matches(name, list(outputs), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"{OUTPUT_FIELD}: the graph has no output {name!r}, it has {told or 'none'}{hint}")
    chosen = onnx.ValueInfoProto.FromString(outputs[name].SerializeToString())
    del graph.output[:]
    graph.output.append(chosen)
    classes = _without_map(model, name)
    if len(outputs) > 1 or classes:
        _keep_read(model)
    return classes


def kind_of(value: onnx.ValueInfoProto) -> str:
    """Return in words what a value is: the element type of a tensor, or that it is none."""
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return {"sequence_type": "a sequence", "map_type": "a map", "optional_type": "optional"}.get(
            str(kind), "unknown"
        )
    number = value.type.tensor_type.elem_type
    return NUMPY_NAMES.get(number) or TensorProto.DataType.Name(number).lower()


def _without_map(model: LeanModel, name: str) -> tuple[str, ...]:
    """Let the output be the tensor that its maps are made of; return the classes, one for each of its columns."""
    graph = model.proto.graph
    maker = next((node for node in graph.node if name in node.output), None)
    if maker is None or maker.op_type != ZIP_MAP:
        return ()
    labels = {one.name: helper.get_attribute_value(one) for one in maker.attribute}
    numbers = list(labels.get("classlabels_int64s") or ())
    texts = [text.decode() for text in labels.get("classlabels_strings") or ()]
    if numbers and numbers != list(range(len(numbers))):
        raise UserError(
            f"{FIELD}: the maps of {name} stand for the classes {', '.join(map(str, numbers))}, and labels are numbers "
            "of outputs, from 0; convert the model without them (zipmap=False), and list these names as classes of the "
            "data"
        )
    source = maker.input[0]
    model.set_nodes([node for node in graph.node if node is not maker])
    rename(model.proto.graph, {source: name})
    del model.proto.graph.output[:]
    count = len(numbers or texts)
    model.proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", count]))
    return tuple(texts or map(str, numbers))


def _keep_read(model: LeanModel) -> None:
    """Take out of the graph what the output is not computed of."""
    read = {value.name for value in model.proto.graph.output}
    kept = []
    for node in reversed(model.proto.graph.node):
        if read & set(node.output):
            kept.append(node)
            read |= set(node.input)
    model.set_nodes(kept[::-1])
    model.drop_unread()
