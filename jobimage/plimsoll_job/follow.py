"""What the other processes under torchrun do: train beside the first, and write nothing."""

from __future__ import annotations

from plimsoll_api.plan import Plan
from plimsoll_api.report import Outcome, Summary
from plimsoll_job.compress import bench_of, make_deterministic, work_directory
from plimsoll_job.errors import TransientError
from plimsoll_job.load.store import Store
from plimsoll_job.loading import load
from plimsoll_job.progress import Reporter
from plimsoll_job.ranks import Ranks
from plimsoll_job.techniques import distill
from plimsoll_job.work import Work


def follow(plan: Plan, store: Store, ranks: Ranks) -> Summary:
    """Train each step that the first process announces, from the candidate that it left in the store."""
    make_deterministic()
    silent = Reporter(emit=lambda _: None)
    loaded = None
    for index in ranks.announced():
        loaded = loaded or load(plan, store, silent)
        work = Work(work_directory(plan, store), loaded.signature)
        finished, candidate, _ = work.resume(index, loaded.source)
        settings = plan.steps[index].distill
        if finished != index or settings is None:
            raise TransientError(f"step {index} cannot be gone on with from the store", reason="StoreUnreadable")
        distill.apply(settings, candidate, bench_of(plan, index, loaded, work.checkpoints(index), silent))
    return Summary(outcome=Outcome.DONE, reason="Followed", message=f"trained beside the first of {ranks.world}")
