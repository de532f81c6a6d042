"""How the record of a step tells its numbers."""

from __future__ import annotations


def six_digits(value: float) -> float:
    """Return the number to six significant digits, however small it is; shares are told to six decimals instead."""
    return float(f"{value:.6g}")
