"""Gemm written as MatMul and Add: kernels of dynamic int8 and of 4 bits are there for MatMul only."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import helper, numpy_helper


def split_gemms(model: onnx.ModelProto, chosen: Collection[str]) -> None:
    """Write the chosen Gemm nodes as MatMul, of the same name, and Add; those that scale or transpose more stay.

    Each gets a weight of its own, named by the weight and the node.
    """
    constants = {constant.name: constant for constant in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        plain = attributes.get("alpha", 1) == attributes.get("beta", 1) == 1 and not attributes.get("transA")
        if node.op_type != "Gemm" or node.name not in chosen or not plain:
            nodes.append(node)
            continue
        weight = numpy_helper.to_array(constants[node.input[1]])
        name, has_bias = f"{node.input[1]}_{node.name}", len(node.input) > 2
        model.graph.initializer.append(
            numpy_helper.from_array(np.ascontiguousarray(weight.T if attributes.get("transB") else weight), name)
        )
        product = f"{node.name}_product" if has_bias else node.output[0]
        nodes.append(helper.make_node("MatMul", [node.input[0], name], [product], name=node.name))
        if has_bias:
            nodes.append(helper.make_node("Add", [product, node.input[2]], node.output, name=f"{node.name}_bias"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [constant for constant in model.graph.initializer if constant.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
