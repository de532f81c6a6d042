"""The model in training, with the terms that it is trained by."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from plimsoll_api.spec import Precision
from plimsoll_job.techniques.distill.answers import Answers, listening
from plimsoll_job.techniques.distill.terms import Knowledge, Term
from plimsoll_job.techniques.observe import Batch


class Learner(nn.Module):
    """Answers a batch with the value of each term, [terms], in Float32."""

    def __init__(
        self,
        student: nn.Module,
        terms: Mapping[str, Term],
        arithmetic: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.student = student
        self.terms = nn.ModuleDict(terms)
        self._arithmetic = arithmetic
        self._layers = sorted({pair.student.name for term in terms.values() for pair in term.pairs})

    @property
    def mixed(self) -> bool:
        """Whether the student computes in a smaller format than its weights have."""
        return self._arithmetic is not torch.float32

    def forward(
        self,
        inputs: Batch,
        knowledge: dict[str, Knowledge],
        labels: torch.Tensor | None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the value of each term for a batch; the mask [batch, tokens] says which tokens count."""
        with listening(self.student, self._layers) as heard:
            with torch.autocast(inputs[0].device.type, self._arithmetic, enabled=self.mixed):
                output = self.student(*inputs)
            answers = Answers(output, heard, mask)
            return torch.stack([term(answers, knowledge.get(kind, ()), labels) for kind, term in self.terms.items()])


def arithmetic_of(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the number format to compute in: bfloat16 only on a GPU that computes it in hardware."""
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if precision is Precision.AUTO and fast else torch.float32
