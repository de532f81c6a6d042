"""The models that a distill step names beside the one as given: another teacher, a fresh student."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from plimsoll_api.spec import Architecture, ModelSource
from plimsoll_job.boundary import boundary
from plimsoll_job.errors import UserError
from plimsoll_job.load.alone import check_alone
from plimsoll_job.load.examples import example_of
from plimsoll_job.load.inputs import Signature
from plimsoll_job.load.model import SourceModel, build_module, load_model
from plimsoll_job.load.plain import plain
from plimsoll_job.load.signature import check_arguments, told_of
from plimsoll_job.load.store import Store


def load_teacher(
    source: ModelSource, store: Store, spec_field: str, *, task: str, allow_code: bool = False
) -> SourceModel:
    """Read and verify the teacher."""
    with _named({"spec.model.": f"{spec_field}."}):
        return load_model(source, store, task, allow_code=allow_code)


def build_student(architecture: Architecture, seed: int, spec_field: str) -> nn.Module:
    """Return the architecture's module with weights drawn by the seed, in evaluation mode."""
    torch.manual_seed(seed)
    with _named({"spec.model.architecture.": f"{spec_field}."}), boundary(spec_field, "it cannot be built"):
        return plain(build_module(architecture)[0], spec_field)


@contextlib.contextmanager
def _named(fields: Mapping[str, str]) -> Iterator[None]:
    """Say of what is wrong in which field it is: the model as given is not the only one."""
    try:
        yield
    except UserError as error:
        message = error.message
        for told, field in fields.items():
            message = message.replace(told, field)
        raise UserError(message, reason=error.reason) from error


def check_answers(module: nn.Module, like: nn.Module, signature: Signature, spec_field: str) -> None:
    """UserError when the module does not answer the same inputs in the same shape as `like`, the model as given."""
    example = example_of(signature)
    with torch.no_grad():
        wanted = like(*example).shape
        check_arguments(module, signature, spec_field)
        with boundary(spec_field, "refuses the inputs of spec.model"):
            answer = module(*example)
    if not isinstance(answer, torch.Tensor):
        raise UserError(f"{spec_field}: answers with {told_of(answer)}")
    given = answer.shape
    check_alone(module, signature, spec_field)
    if given != wanted:
        raise UserError(
            f"{spec_field}: answers a sample with {list(given[1:])} numbers, spec.model with {list(wanted[1:])}"
        )
