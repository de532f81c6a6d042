"""ONNX operators in torch, so that a graph can be trained.

They are those that torch's exporter writes for known architectures.
"""

from __future__ import annotations

from collections.abc import Mapping

from plimsoll_job.techniques.quantize.operators.arithmetic import ARITHMETIC
from plimsoll_job.techniques.quantize.operators.contract import Operator
from plimsoll_job.techniques.quantize.operators.layout import LAYOUT
from plimsoll_job.techniques.quantize.operators.windows import WINDOWS

OPERATORS: Mapping[str, Operator] = {**WINDOWS, **ARITHMETIC, **LAYOUT}
