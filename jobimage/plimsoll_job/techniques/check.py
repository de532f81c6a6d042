"""Whether a model still works after its structure was changed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from plimsoll_job.errors import UserError
from plimsoll_job.load.examples import example_of
from plimsoll_job.load.inputs import Signature


def check_runs(
    module: nn.Module, signature: Signature, output_shape: Sequence[int], spec_field: str, reason: str
) -> None:
    """UserError of this reason when the module no longer runs, or answers in another shape than before."""
    try:
        with torch.no_grad():
            shape = tuple(module(*example_of(signature)).shape)
    # A module that reads the weight of a layer instead of calling it finds no such attribute.
    except (RuntimeError, AttributeError) as error:
        raise UserError(f"{spec_field}: the changed model does not run: {error}", reason=reason) from error
    if shape != tuple(output_shape):
        raise UserError(
            f"{spec_field}: the step changed the output from {list(output_shape)} to {list(shape)}", reason=reason
        )
