"""Times of models beside another, from several processes: the figures of one process are a sample of one."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plimsoll_api.gates import LatencyMeasurement
from plimsoll_job.child import run_child
from plimsoll_job.evaluate.timed import PEAK_MEMORY_BYTES, Graph, Order, Pair
from plimsoll_job.evaluate.timing import Times
from plimsoll_job.load.inputs import Arrays
from plimsoll_job.memory import count_beside, give_back
from plimsoll_job.progress import Reporter

SPEC_FIELD = "spec.evaluation.latency"


@dataclass(frozen=True)
class Timed:
    """A model to be timed, with a batch for the first model and one for itself, by their size."""

    graph: Graph
    batches: Mapping[int, tuple[Arrays, Arrays]]


def time_in_processes(
    first: Graph, others: Sequence[Timed], settings: LatencyMeasurement, reporter: Reporter | None = None
) -> list[dict[int, list[Times]]]:
    """Return for each of the others, by batch size, the times beside the first model in every process.

    Each process loads the models anew, every second one in the other order, and takes its share of the rounds.
    """
    give_back()
    found: list[dict[int, list[Times]]] = [{size: [] for size in other.batches} for other in others]
    with tempfile.TemporaryDirectory(prefix="plimsoll-") as directory:
        root = Path(directory)
        arrays = {
            f"{number}/{size}/{place}/{name}": array
            for number, other in enumerate(others)
            for size, batches in other.batches.items()
            for place, inputs in enumerate(batches)
            for name, array in inputs.items()
        }
        np.savez(root / "batches.npz", **arrays)  # type: ignore[arg-type]
        for process in range(settings.processes):
            if reporter is not None:
                reporter.report("measure", process / settings.processes, f"latency, process {process + 1}")
            order = Order(
                first=first,
                pairs=[Pair(graph=other.graph, batch_sizes=list(other.batches)) for other in others],
                batches=str(root / "batches.npz"),
                threads=settings.threads,
                rounds=-(-settings.rounds // settings.processes),
                other_first=process % 2 == 1,
            )
            (root / "order.json").write_bytes(order.canonical_json())
            run_child(
                "plimsoll_job.evaluate.timed",
                [root / "order.json", root / "times.npz"],
                does="times the models",
                refusal=f"{SPEC_FIELD}: the models cannot be timed",
                reason="TimingFails",
            )
            with np.load(root / "times.npz", allow_pickle=False) as archive:
                count_beside(int(archive[PEAK_MEMORY_BYTES]))
                for number, sizes in enumerate(found):
                    for size, times in sizes.items():
                        times.append(Times(archive[f"{number}/{size}/0"], archive[f"{number}/{size}/1"]))
    return found
