"""Modules that a function of the image builds."""

from __future__ import annotations

import importlib
from typing import Any

from torch import nn

from plimsoll_job.boundary import check_passing
from plimsoll_job.errors import UserError

FIELD = "spec.model.architecture.factory"


def build_factory(factory: str) -> nn.Module:
    """Call `module:function` of the image; UserError when it is not there or returns no module."""
    module_name, _, function_name = factory.partition(":")
    try:
        function: Any = getattr(importlib.import_module(module_name), function_name)
    except ImportError as error:
        raise UserError(f"{FIELD}: the job image cannot import {module_name!r}: {error}") from error
    except AttributeError as error:
        raise UserError(f"{FIELD}: {module_name!r} has no function {function_name!r}") from error
    # What a factory's own code raises cannot be known; whatever it is, another factory must be named.
    try:
        module = function()
    except Exception as error:
        check_passing(error)
        raise UserError(f"{FIELD}: {factory} failed: {error}") from error
    if not isinstance(module, nn.Module):
        raise UserError(f"{FIELD}: {factory} returned {type(module).__name__}, expected a torch module")
    return module
