"""python -m bench.engine.plot POINTS PICTURE: draws what each contender reached."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.engine.contenders import NAMES, PLAIN
from bench.engine.point import Mean, Point, front, means
from bench.rows import read

AXES = {"size": "bytes, over the baseline's", "latency_1": "p50 at batch 1, over the baseline's"}
#: Points that fall lower have failed: they would press all others into one line.
LOWEST_POINTS = -5.0
RATIOS = (0.03, 0.1, 0.3, 1, 3, 10)


def draw(all_means: Sequence[Mean], picture: str) -> None:
    """Write the picture: a column a model, size and latency against the change of quality; ours on a line."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    models = list(dict.fromkeys(one.model for one in all_means))
    figure, grid = plt.subplots(len(AXES), len(models), figsize=(5 * len(models), 8), squeeze=False)
    colors = dict(zip(NAMES, plt.get_cmap("tab10").colors, strict=False))
    for column, model in enumerate(models):
        here = [one for one in all_means if one.model == model and one.peer != PLAIN]
        for row, (axis, label) in enumerate(AXES.items()):
            _panel(grid[row][column], here, axis, colors)
            grid[row][column].set_xlabel(label)
        grid[0][column].set_title(model)
    for row in range(len(AXES)):
        grid[row][0].set_ylabel("change of quality, points")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=len(labels))
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(picture, dpi=100, metadata={"Software": None})


def _panel(panel: Any, here: Sequence[Mean], axis: str, colors: dict[str, Any]) -> None:
    def spots(some: Sequence[Mean]) -> tuple[list[float], list[float]]:
        return [getattr(one, axis) for one in some], [max(LOWEST_POINTS, one.change_points) for one in some]

    for peer in dict.fromkeys(one.peer for one in here):
        panel.scatter(*spots([one for one in here if one.peer == peer]), label=peer, color=colors[peer], zorder=2)
    ours = sorted(front([one for one in here if one.ours]), key=lambda one: getattr(one, axis))
    panel.plot(*spots(ours), color="grey", linewidth=0.8, zorder=1)
    panel.axhline(0, color="black", linewidth=0.5)
    panel.axvline(1, color="black", linewidth=0.5)
    panel.set_xscale("log")
    panel.set_xticks(RATIOS, labels=[f"{ratio:g}" for ratio in RATIOS])
    panel.set_xticks([], minor=True)
    panel.set_ylim(LOWEST_POINTS - 0.3, 1)
    panel.set_yticks([LOWEST_POINTS, *range(-4, 2)], labels=[f"≤ {LOWEST_POINTS:g}", *map(str, range(-4, 2))])


if __name__ == "__main__":
    draw(means(read(Path(sys.argv[1]), Point)), sys.argv[2])
