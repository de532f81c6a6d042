"""Gemm written as MatMul and Add: kernels of dynamic int8 and of 4 bits are there for MatMul only."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from onnx import helper

from plimsoll_job.export.fold import transposed
from plimsoll_job.export.lean import LeanModel


def split_gemms(model: LeanModel, chosen: Collection[str]) -> None:
    """Write the chosen Gemm nodes as MatMul, of the same name, and Add; those that scale or transpose more stay.

    Each gets a weight of its own, named by the weight and the node.
    """
    graph = model.proto.graph
    constants = {constant.name: constant for constant in graph.initializer}
    nodes = []
    for node in graph.node:
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        plain = attributes.get("alpha", 1) == attributes.get("beta", 1) == 1 and not attributes.get("transA")
        if node.op_type != "Gemm" or node.name not in chosen or not plain:
            nodes.append(node)
            continue
        weight = constants[node.input[1]]
        axes = (1, 0) if attributes.get("transB") else (0, 1)
        name, has_bias = f"{weight.name}_{node.name}", len(node.input) > 2
        shape = tuple(weight.dims[axis] for axis in axes)
        model.add(name, weight.data_type, shape, partial(transposed, model.source(weight), axes))
        product = f"{node.name}_product" if has_bias else node.output[0]
        nodes.append(helper.make_node("MatMul", [node.input[0], name], [product], name=node.name))
        if has_bias:
            nodes.append(helper.make_node("Add", [product, node.input[2]], node.output, name=f"{node.name}_bias"))
    model.set_nodes(nodes)
    model.drop_unread()
