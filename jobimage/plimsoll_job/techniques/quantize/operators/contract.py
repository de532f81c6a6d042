"""What an operator takes and returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

Attributes = Mapping[str, Any]
#: Takes the node's attributes and its inputs, None for one left out, and returns its output or outputs, as the ONNX
#: specification says.
Operator = Callable[..., Tensor | Sequence[Tensor]]
