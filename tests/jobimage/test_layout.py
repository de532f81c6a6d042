"""Where tokens lie in a tensor: the candidates for its shape, and what a mask leaves of each."""

from __future__ import annotations

import numpy as np
import pytest

from plimsoll_job.techniques.layout import Layout, Over, layouts_of, settle

S, T = Over.SAMPLES, Over.TOKENS
MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], dtype=bool)


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (Layout(((S,), (T,), ())), MASK[:, :, None]),
        (Layout(((T,), (S,), ())), MASK.T[:, :, None]),
        (Layout(((S, T), ())), MASK.reshape(8, 1)),
        (Layout(((T, S), ())), MASK.T.reshape(8, 1)),
        (Layout(((S,), (T,), ()), before=1), np.pad(MASK, ((0, 0), (1, 0)), constant_values=True)[:, :, None]),
        (Layout(((S,), (T,), ()), after=1), np.pad(MASK, ((0, 0), (0, 1)), constant_values=True)[:, :, None]),
        (Layout(((S,), (), (T,), (T,))), (MASK[:, :, None] & MASK[:, None, :])[:, None]),
        (Layout(((S, 3), (T,), ())), MASK.repeat(3, axis=0)[:, :, None]),
        (Layout(((3, S), (T,), ())), np.tile(MASK, (3, 1))[:, :, None]),
    ],
)
def test_a_mask_is_laid_out_as_the_tensor_is(layout: Layout, expected: np.ndarray) -> None:
    assert np.array_equal(layout.counted(MASK), expected)


@pytest.mark.parametrize(
    ("shape", "first"),
    [
        ((3, 7, 32), Layout(((S,), (T,), ()))),
        ((7, 3, 32), Layout(((T,), (S,), ()))),
        ((21, 32), Layout(((S, T), ()))),
        ((3, 8, 32), Layout(((S,), (T,), ()), before=1)),
        ((3, 4, 7, 7), Layout(((S,), (), (T,), (T,)))),
        ((12, 7, 5), Layout(((S, 4), (T,), ()))),
    ],
)
def test_the_likeliest_layout_of_a_shape_comes_first(shape: tuple[int, ...], first: Layout) -> None:
    found = layouts_of(shape, samples=3, tokens=7)
    assert found[0] == first
    assert all(one.fits(shape, 3, 7) for one in found)
    assert not first.fits((*shape, 1), 3, 7)


def test_what_has_no_axis_of_tokens_has_no_layout() -> None:
    assert layouts_of((3, 32), 3, 7) == layouts_of((7, 32), 3, 7) == layouts_of((40,), 3, 7) == []
    assert layouts_of((3, 7), 3, 7, free=[-1]) == []


def test_few_questions_settle_many_names() -> None:
    right, wrong = Layout(((S,), (T,), ())), Layout(((T,), (S,), ()))
    candidates = {f"layer {at}": [right, wrong] for at in range(64)}
    candidates["turned"], candidates["reads it"] = [wrong, right], [wrong]
    asked = []

    def holds(some: dict[str, Layout]) -> bool:
        asked.append(len(some))
        return all(layout == right for layout in some.values())

    settled = settle(candidates, holds)
    assert settled == {**{f"layer {at}": right for at in range(64)}, "turned": right}
    assert len(asked) < 24
