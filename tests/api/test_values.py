"""The values that people write: what they mean, at the edges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from plimsoll_api import figures
from plimsoll_api.model import Decimal, Duration, Fraction, Quantity, canonical_json, digest_of
from plimsoll_api.steps import Distill, LogitsLoss, Prune
from plimsoll_api.verdict import Check, Verdict


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1%", 0.01),
        ("0.62%", 0.0062),
        ("0.0062", 0.0062),
        ("100%", 1.0),
        ("100.0%", 1.0),
        ("0%", 0.0),
        (0, 0.0),
        (1, 1.0),
    ],
)
def test_fractions(text: str | int, value: float) -> None:
    assert Fraction(text).value == value


@pytest.mark.parametrize(
    "text", ["", "101%", "100.1%", "1.1", "-1%", "1 %", "%", "1e-2", "01.5", ".5", "٣%", "1%\n", 2]
)
def test_no_fractions(text: str | int) -> None:
    with pytest.raises(ValueError, match="a fraction from 0 to 1"):
        Fraction(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("50ms", 0.05),
        ("1.5s", 1.5),
        ("2m", 120),
        ("500us", 0.0005),
        ("1h", 3600),
        ("550us", 0.00055),
        ("0.55ms", 0.00055),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert Duration(text).seconds == pytest.approx(seconds, rel=1e-15)


@pytest.mark.parametrize("text", ["", "50", "50 ms", "-1s", "ms", "1d", "1.s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="a duration such as"):
        Duration(text)


@given(st.integers(0, 999_999_999), st.integers(0, 999_999))
def test_decimals_are_read_as_written(whole: int, parts: int) -> None:
    assert Decimal(f"{whole}.{parts:06d}").value == float(f"{whole}.{parts:06d}")


@pytest.mark.parametrize("text", ["500m", "2", "1Gi", "1.5Gi", "1e3", "0", 4])
def test_quantities(text: str | int) -> None:
    assert Quantity(text) == str(text)


@pytest.mark.parametrize("text", ["4 gigs", "-1", "1gb", "", "Gi", "1mi"])
def test_no_quantities(text: str) -> None:
    with pytest.raises(ValueError, match="a quantity that is not negative"):
        Quantity(text)


@pytest.mark.parametrize("amount", ["0.000000000001", "99.9999999999%", "1%"])
def test_amounts_inside_their_range(amount: str) -> None:
    assert Prune.model_validate({"criterion": "Magnitude", "amount": amount}).amount == amount


@pytest.mark.parametrize("amount", ["0", "0.0", "0%", "1", "1.0", "100%", "100.00%"])
def test_amounts_at_the_ends_of_their_range(amount: str) -> None:
    with pytest.raises(ValidationError, match=r"must be above 0 and below 1 \(100%\)"):
        Prune.model_validate({"criterion": "Magnitude", "amount": amount})


@pytest.mark.parametrize("temperature", ["100", "0.001", 4, 100])
def test_temperatures_inside_their_range(temperature: str | int) -> None:
    assert LogitsLoss.model_validate({"temperature": temperature}).temperature.value > 0


@pytest.mark.parametrize("temperature", ["100.1", "0", "0.000", 0, 101, 4.5, True])
def test_temperatures_outside_their_range(temperature: str | float) -> None:
    with pytest.raises(ValidationError):
        LogitsLoss.model_validate({"temperature": temperature})


@pytest.mark.parametrize(
    ("losses", "weights"),
    [
        ([{"logits": {}}], (1.0,)),
        ([{"logits": {}}, {"labels": {}}], (0.5, 0.5)),
        ([{"logits": {}}, {"labels": {"weight": "30%"}}], (0.7, 0.3)),
        ([{"labels": {"weight": "40%"}}, {"logits": {"weight": "0.6"}}], (0.4, 0.6)),
    ],
)
def test_weights_of_losses_are_filled_in(losses: list[object], weights: tuple[float, ...]) -> None:
    assert Distill.model_validate({"epochs": 1, "losses": losses}).weights == pytest.approx(weights)


def test_a_model_made_in_python_keeps_its_rules_too() -> None:
    with pytest.raises(ValidationError, match="granularity: must be Structured unless criterion is Magnitude"):
        Prune.model_validate({"criterion": "Activation", "granularity": "Unstructured", "amount": "10%"})


def test_models_are_values() -> None:
    check = Check(name="a", verdict=Verdict.PASS, bound="b", message="c")
    with pytest.raises(ValidationError):
        setattr(check, "name", "d")  # noqa: B010
    assert check.canonical_json() == b'{"bound":"b","message":"c","name":"a","observed":"","verdict":"Pass"}'
    assert check.content_digest() == digest_of(check.canonical_json())


def test_canonical_json_is_one_form() -> None:
    assert canonical_json({"b": 1, "a": "ü"}) == canonical_json({"a": "ü", "b": 1}) == '{"a":"ü","b":1}'.encode()
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": float("nan")})


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (figures.percent(0.976), "97.6%"),
        (figures.percent(1.0), "100%"),
        (figures.percent(0.00004), "0%"),
        (figures.points(0.01), "1 point"),
        (figures.points(0.0022), "0.22 points"),
        (figures.signed_points(-0.00001), "0 points"),
        (figures.signed_points(0.02), "+2 points"),
        (figures.ratio(0.41), "0.41x"),
        (figures.ratio(0.00123), "0.00123x"),
        (figures.ratio(12.0), "12x"),
        (figures.count(1071), "1,071"),
        (figures.seconds(0.00125), "1.25ms"),
        (figures.seconds(0.00031), "310us"),
        (figures.seconds(2.5), "2.5s"),
        (figures.seconds(0.0), "0us"),
    ],
)
def test_numbers_as_people_read_them(shown: str, text: str) -> None:
    assert shown == text
