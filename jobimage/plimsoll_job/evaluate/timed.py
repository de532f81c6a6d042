"""python -m plimsoll_job.evaluate.timed ORDER TIMES: time models beside the first one, in a process of its own.

ORDER is .json: an Order. TIMES is .npz: `<pair>/<batch size>/<0 or 1>` [rounds, runs] in seconds, of the first model
and of the other, and the most memory held. Weights and code lie elsewhere in each process, which alone makes a model a
few percent faster or slower for as long as it runs. Neither torch nor the data set is read here.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll_api.model import Model, digest_of
from plimsoll_job.evaluate.timing import measure_times
from plimsoll_job.memory import peak_memory_bytes
from plimsoll_job.parent import end_with_parent
from plimsoll_job.sessions import open_served

PEAK_MEMORY_BYTES = "peak_memory_bytes"


class Graph(Model):
    """A file of ONNX, and the digest of what was verified: bytes that have changed since are not timed."""

    path: str
    digest: str | None = None

    def read(self) -> bytes | Path:
        """Return what a session is made of."""
        if self.digest is None:
            return Path(self.path)
        content = Path(self.path).read_bytes()
        if digest_of(content) != self.digest:
            raise ValueError(f"{self.path} has changed while it was measured")
        return content


class Pair(Model):
    """A model that is timed beside the first one, at these batch sizes."""

    graph: Graph
    batch_sizes: list[int]


class Order(Model):
    """What one process times. `batches` is .npz: `<pair>/<batch size>/<0 or 1>/<input>`."""

    first: Graph
    pairs: list[Pair]
    batches: str
    threads: int
    rounds: int
    #: Whether the other model is loaded before the first: whichever comes second finds memory that the other left.
    other_first: bool


def times_of(order: Order) -> dict[str, NDArray[np.float64]]:
    """Return the times of every pair at every batch size."""
    found: dict[str, NDArray[np.float64]] = {}
    with np.load(order.batches, allow_pickle=False) as archive:
        arrays: dict[str, dict[str, Any]] = {}
        for key in archive.files:
            of, _, name = key.rpartition("/")
            arrays.setdefault(of, {})[name] = archive[key]
    for number, pair in enumerate(order.pairs):
        graphs = [order.first, pair.graph]
        places = (1, 0) if order.other_first else (0, 1)
        sessions = {place: open_served(graphs[place].read(), order.threads) for place in places}
        for size in pair.batch_sizes:
            first, other = (partial(sessions[at].run, None, arrays[f"{number}/{size}/{at}"]) for at in (0, 1))
            times = measure_times(first, other, rounds=order.rounds)
            found |= {f"{number}/{size}/0": times.baseline, f"{number}/{size}/1": times.candidate}
    return found


def main() -> None:
    """Carry the order out."""
    end_with_parent()
    order = Order.model_validate_json(Path(sys.argv[1]).read_bytes())
    times = times_of(order)
    np.savez(sys.argv[2], **times, **{PEAK_MEMORY_BYTES: peak_memory_bytes()})  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
