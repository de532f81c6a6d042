"""The kind of machine that measured: numbers of another kind are another model's."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from plimsoll_api.model import Model
from plimsoll_api.values import list_of


class Machine(Model):
    """What decides how a model answers and how fast: processor, GPU, threads and runtime."""

    processor: Annotated[str, Field(max_length=256)] = Field(description="Its name, as it tells it.")
    instruction_sets: list[Annotated[str, Field(max_length=32)]] = Field(
        default=[],
        max_length=32,
        description="Those that matrix products choose kernels by, as Linux spells them, such as avx2 or avx512_vnni.",
        json_schema_extra=list_of("set"),
    )
    gpu: Annotated[str, Field(max_length=256)] | None = Field(
        default=None, description="The GPU that the models answered on; the processor when unset."
    )
    threads: int = Field(ge=1, description="Threads that a model answered with.")
    runtime: Annotated[str, Field(max_length=256)] = Field(
        default="", description="The build of ONNX Runtime: its package, version and commit."
    )

    def differences(self, other: Machine) -> list[str]:
        """Return what differs of the other machine, in a few words each; nothing where both are of one kind.

        Processors of two names but the same instruction sets are of one kind. What an older version did not tell is no
        difference.
        """
        found = []
        if self.instruction_sets and other.instruction_sets:
            lacks = [one for one in self.instruction_sets if one not in other.instruction_sets]
            has = [one for one in other.instruction_sets if one not in self.instruction_sets]
            found += [f"without {', '.join(lacks)}"] if lacks else []
            found += [f"with {', '.join(has)}"] if has else []
        if self.gpu != other.gpu:
            found.append(f"on {other.gpu or 'the processor'} instead of {self.gpu or 'the processor'}")
        if self.threads != other.threads:
            found.append(f"with {other.threads} threads instead of {self.threads}")
        if self.runtime and other.runtime and self.runtime != other.runtime:
            found.append(f"by {other.runtime} instead of {self.runtime}")
        return found
