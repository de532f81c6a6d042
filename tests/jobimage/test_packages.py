"""The provenance names the packages that an artifact came from, and none that had no part in it."""

from __future__ import annotations

from tests.jobimage.claims import Claims

from plimsoll_job.packages import ENGINE, SERVING_RUNTIME, engine_versions

TEACHER = {"uri": "pvc://models/teacher", "architecture": {"huggingface": {}}}


def test_what_builds_the_models_of_a_plan_is_named_beside_the_engine(claims: Claims) -> None:
    distill = {"epochs": 1, "teacher": TEACHER, "student": {"torchvision": {"name": "resnet18"}}}
    plan = claims.plan([{"distill": distill}])
    engine = engine_versions([plan.model.architecture]).keys()
    assert len(engine & set(SERVING_RUNTIME)) == 1
    assert engine | set(SERVING_RUNTIME) == set(ENGINE)
    assert engine_versions(plan.architectures()).keys() == {*engine, "transformers", "tokenizers", "torchvision"}
