"""What the other processes under torchrun do: train beside the first, and tell only what memory that took."""

from __future__ import annotations

from plimsoll_api.plan import Plan
from plimsoll_api.report import Outcome, Summary
from plimsoll_job.boundary import boundary
from plimsoll_job.compress import bench_of, make_deterministic, work_directory
from plimsoll_job.errors import TransientError
from plimsoll_job.load.plan import load_plan
from plimsoll_job.load.store import Store
from plimsoll_job.memory import keep_tensors_apart, peak_memory_bytes
from plimsoll_job.progress import Reporter
from plimsoll_job.ranks import Ranks
from plimsoll_job.techniques.table import BESIDE, technique_of
from plimsoll_job.work import Work


def follow(plan: Plan, store: Store, ranks: Ranks) -> Summary:
    """Train each step that the first process announces, from the candidate that it left in the store."""
    make_deterministic()
    keep_tensors_apart()
    silent = Reporter(emit=lambda _: None)
    loaded = None
    for index in ranks.announced():
        loaded = loaded or load_plan(plan, store, silent)
        work = Work(work_directory(plan, store), loaded.signature)
        finished, candidate, _ = work.resume(index, loaded.source)
        if finished != index:
            raise TransientError(f"step {index} cannot be gone on with from the store", reason="StoreUnreadable")
        technique = technique_of(plan.steps[index])
        bench = bench_of(plan, index, loaded, work.checkpoints(index), silent)
        with boundary(bench.spec_field, "the step cannot be taken on this model"):
            BESIDE[technique](getattr(plan.steps[index], technique), candidate, bench)
        work.keep_peak_memory(peak_memory_bytes(), ranks.rank)
    return Summary(outcome=Outcome.DONE, reason="Followed", message=f"trained beside the first of {ranks.world}")
