"""Factorization within a whole compression: recorded, resumed without pickle, the same every time."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.jobimage.claims import INT8, Claims, published

from plimsoll_api.report import Summary
from plimsoll_job import compress as flow
from plimsoll_job.load.model import load_model
from plimsoll_job.load.plan import load_plan
from plimsoll_job.load.store import Store
from plimsoll_job.progress import Reporter
from plimsoll_job.techniques.table import TECHNIQUES
from plimsoll_job.work import Work

FACTORIZE = {"factorize": {"method": "ActivationSvd", "amount": "40%"}}
CUT = {"prune": {"criterion": "Activation", "amount": "20%"}}
DISTILL = {"distill": {"epochs": 2, "batchSize": 16}}
STEPS: list[dict[str, Any]] = [CUT, FACTORIZE, DISTILL, INT8]


def compressed(claims: Claims) -> Summary:
    summary = flow.compress(claims.plan(STEPS), Store(claims=claims.directory), Reporter(emit=lambda _: None))
    torch.set_num_threads(1)
    return summary


def die(*_: Any) -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize("deadly", ["distill", "quantize"])
def test_a_killed_run_goes_on_from_its_factors(
    claims: Claims, wine_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deadly: str
) -> None:
    undisturbed = compressed(Claims.copy_of(wine_source, tmp_path / "undisturbed"))
    with monkeypatch.context() as patched:
        patched.setitem(TECHNIQUES, deadly, die)
        with pytest.raises(KeyboardInterrupt):
            compressed(claims)
    for finished in ("prune", "factorize"):
        monkeypatch.setitem(TECHNIQUES, finished, die)
    assert compressed(claims) == undisturbed


def test_the_record_tells_the_ranks_and_what_they_gained(claims: Claims) -> None:
    _, step, _, _ = published(claims, compressed(claims).candidate)["lineage"]["steps"]
    assert (step["technique"], step["settings"]) == (
        "factorize",
        FACTORIZE["factorize"] | {"batchNorm": "Reestimate"},
    )
    gained = [layer["parameters"] for layer in step["details"]["layers"]]
    assert gained
    assert sum(before - after for before, after in gained) == step["parametersBefore"] - step["parametersAfter"]
    assert step["parametersAfter"] == pytest.approx(0.6 * step["parametersBefore"], abs=0.02 * step["parametersBefore"])
    assert step["macsAfter"] < step["macsBefore"]


def test_cuts_and_factors_come_back_from_the_work_directory_in_their_order(
    claims: Claims, store: Store, tmp_path: Path
) -> None:
    plan = claims.plan([CUT, FACTORIZE, CUT])
    loaded = load_plan(plan, store, Reporter(emit=lambda _: None))
    work = Work(tmp_path / "work", loaded.signature)
    silent = Reporter(emit=lambda _: None)
    publish = flow.publishing(plan, loaded, flow.publish_baseline(plan, loaded, store, silent), store)
    candidate, records = flow.take_steps(plan, loaded, work, publish, silent)
    finished, again, same_records = work.resume(3, load_model(plan.model, store))
    assert (finished, again.changes, same_records) == (3, candidate.changes, records)
    assert again.fingerprint() == candidate.fingerprint()
    assert again.module(torch.ones(2, 13)).equal(candidate.module(torch.ones(2, 13)))
