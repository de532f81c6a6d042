"""How a scheme finds its integers: what its ranges end at, how weights are rounded, what is made alike or corrected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from plimsoll_api.spec import BiasCorrection, Equalization, Quantize, QuantizeScheme, RangeMethod, Rounding
from plimsoll_api.steps.quantize import RANGED, ROUNDED

#: What each field can be, the default first; in the order in which a search settles them.
CHOICES: dict[str, tuple[str, ...]] = {
    "ranges": tuple(RangeMethod),
    "equalization": tuple(Equalization),
    "rounding": tuple(Rounding),
    "bias": tuple(BiasCorrection),
}


def fields_of(scheme: QuantizeScheme) -> tuple[str, ...]:
    """Return which of the fields the scheme has."""
    schemes = {"ranges": RANGED} | dict.fromkeys(("equalization", "rounding", "bias"), ROUNDED)
    return tuple(field for field in CHOICES if scheme in schemes[field])


@dataclass(frozen=True)
class Method:
    """The four choices, of which the defaults round to the nearest integer within all that was seen."""

    ranges: RangeMethod = RangeMethod.MIN_MAX
    equalization: Equalization = Equalization.NONE
    rounding: Rounding = Rounding.NEAREST
    bias: BiasCorrection = BiasCorrection.KEEP

    @classmethod
    def of(cls, settings: Quantize, scheme: QuantizeScheme) -> Self:
        """Return what the settings ask of the scheme; what they leave unset or the scheme lacks is the default."""
        return cls(**{field: value for field in fields_of(scheme) if (value := getattr(settings, field)) is not None})

    def to_details(self, scheme: QuantizeScheme) -> dict[str, Any]:
        """Return the choices that the scheme has."""
        return {field: str(getattr(self, field)) for field in fields_of(scheme)}


NEAREST = Method()
