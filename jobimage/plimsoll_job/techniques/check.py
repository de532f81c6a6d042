"""Whether a model still works after its structure was changed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from plimsoll_job.boundary import boundary
from plimsoll_job.errors import UserError
from plimsoll_job.load.examples import example_of
from plimsoll_job.load.inputs import Signature


def check_runs(
    module: nn.Module, signature: Signature, output_shape: Sequence[int], spec_field: str, reason: str
) -> None:
    """UserError of this reason when the module no longer runs, or answers in another shape than before."""
    with boundary(spec_field, "the changed model does not run", reason=reason), torch.no_grad():
        shape = tuple(module(*example_of(signature)).shape)
    if shape != tuple(output_shape):
        raise UserError(
            f"{spec_field}: the step changed the output from {list(output_shape)} to {list(shape)}", reason=reason
        )
