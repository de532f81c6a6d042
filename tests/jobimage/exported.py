"""What a test looks at of an export: its bytes."""

import tempfile
from pathlib import Path

from torch import nn

from plimsoll_job.export.onnx_export import export_onnx
from plimsoll_job.load.inputs import Signature


def export_bytes(module: nn.Module, signature: Signature) -> bytes:
    """Return the bytes of the file that is written of the module."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "model.onnx")
        export_onnx(module, signature, path)
        return path.read_bytes()
