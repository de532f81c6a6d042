"""Numbers as people read them."""

from __future__ import annotations


def percent(share: float, decimals: int = 2) -> str:
    """Return "97.6%" for 0.976: no decimals that say nothing."""
    return f"{_trimmed(share * 100, decimals)}%"


def points(difference: float) -> str:
    """Return "0.22 points" for 0.0022, the unit of differences of shares."""
    number = _trimmed(difference * 100, 2)
    return f"{number} point" if number in ("1", "-1") else f"{number} points"


def signed_points(difference: float) -> str:
    """Return "-0.22 points" or "+1 point"."""
    sign = "+" if round(difference * 100, 2) > 0 else ""
    return sign + points(difference)


def signed_percent(share: float) -> str:
    """Return "+3.1%" or "-0.4%"."""
    return f"{'+' if round(share * 100, 2) > 0 else ''}{percent(share)}"


def number(value: float) -> str:
    """Return "0.3125": four digits of a figure whose unit is the labels'."""
    return f"{value:.4g}"


def ratio(value: float) -> str:
    """Return "0.41x"."""
    return f"{value:.4g}x"


def count(number: float) -> str:
    """Return "1,071"."""
    return f"{number:,.0f}"


def mebibytes(value: float) -> str:
    """Return "1,071 MiB", rounded up."""
    return f"{-(-value // (1 << 20)):,.0f} MiB"


def seconds(value: float) -> str:
    """Return "1.25ms", "310us" or "2.5s"."""
    if value >= 1:
        return f"{value:.3g}s"
    return f"{value * 1e3:.3g}ms" if value >= 1e-3 else f"{value * 1e6:.3g}us"


def _trimmed(number: float, decimals: int) -> str:
    text = f"{number:.{decimals}f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text
