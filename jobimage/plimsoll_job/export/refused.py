"""The error for a model that has no ONNX graph."""

from __future__ import annotations

from plimsoll_job.errors import UserError

FIELD = "spec.model.architecture"
NOT_EXPORTABLE = "the model cannot be exported to ONNX"


def not_exportable(why: str) -> UserError:
    """Return the error that says why."""
    return UserError(f"{FIELD}: {NOT_EXPORTABLE}: {why}", reason="NotExportable")
