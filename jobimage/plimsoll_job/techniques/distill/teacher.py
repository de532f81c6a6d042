"""What the teacher knows of the training samples: asked once where it fits, and batch by batch where it does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from plimsoll_job.errors import UserError
from plimsoll_job.techniques.distill.answers import Answers, listening
from plimsoll_job.techniques.distill.terms import Knowledge, Term
from plimsoll_job.techniques.observe import Batch

#: What layers inside the teacher answer is kept up to so much; outputs are small and are kept always.
MAX_HIDDEN_BYTES = 1 << 30


class Teacher:
    """Gives each term its knowledge of any of the samples; in the host's memory until then."""

    def __init__(
        self,
        module: nn.Module,
        terms: Mapping[str, Term],
        inputs: Batch,
        batch_size: int,
        device: torch.device,
        *,
        remembers: bool = True,
    ) -> None:
        self._terms = {kind: term for kind, term in terms.items() if kind != "labels"}
        self._layers = sorted({pair.teacher.name for term in terms.values() for pair in term.pairs})
        self._inputs, self._batch_size, self._device = inputs, batch_size, device
        self._remembered: dict[str, Knowledge] | None = None
        self._module: nn.Module | None = None
        if self._terms:
            self._module = module.to(device).eval()
            if remembers and self._fits():
                self._remembered = self._ask_all()
                self._module = None

    @property
    def asked(self) -> str:
        """How often a sample is put to the teacher, for the record."""
        return "Never" if not self._terms else "Once" if self._module is None else "EachEpoch"

    def knowledge(self, chosen: torch.Tensor, changed: Batch | None = None) -> dict[str, Knowledge]:
        """Return the knowledge of the samples of these numbers, on the device; of them as changed where they are."""
        if changed is not None:
            return self._ask(changed) if self._terms else {}
        if self._remembered is not None:
            return {
                kind: tuple(tensor[chosen].to(self._device) for tensor in knowledge)
                for kind, knowledge in self._remembered.items()
            }
        return self._ask(tuple(one[chosen] for one in self._inputs)) if self._terms else {}

    def _fits(self) -> bool:
        first = next(self._batches())
        knowledge = self._ask(first)
        hidden = sum(tensor.nbytes for kind, some in knowledge.items() if self._terms[kind].pairs for tensor in some)
        return hidden / len(first[0]) * len(self._inputs[0]) <= MAX_HIDDEN_BYTES

    def _ask_all(self) -> dict[str, Knowledge]:
        parts = [
            {kind: tuple(tensor.cpu() for tensor in some) for kind, some in self._ask(batch).items()}
            for batch in self._batches()
        ]
        return {
            kind: tuple(torch.cat(tensors) for tensors in zip(*(part[kind] for part in parts), strict=True))
            for kind in self._terms
        }

    def _ask(self, batch: Batch) -> dict[str, Knowledge]:
        assert self._module is not None  # noqa: S101 — dropped only once everything is remembered
        with torch.no_grad(), listening(self._module, self._layers) as heard:
            output = self._module(*(one.to(self._device) for one in batch))
        # Of tokens, those of the padding may be anything.
        wrong = 0 if output.ndim > 2 else int((~output.isfinite().flatten(1).all(dim=1)).sum())
        if wrong:
            raise UserError(
                f"spec.data.train: the teacher answers {wrong} of a batch's {len(output)} samples with NaN or "
                "infinity: nothing can be learned from that; leave such samples out",
                reason="AnswersNotFinite",
            )
        answers = Answers(output, heard)
        return {kind: term.knowledge(answers) for kind, term in self._terms.items()}

    def _batches(self) -> Iterator[Batch]:
        return zip(*(torch.split(one, self._batch_size) for one in self._inputs), strict=True)
