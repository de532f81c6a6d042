"""The table of techniques is complete, and each has the shape of the others."""

import inspect

from plimsoll_api.spec import Step
from plimsoll_job.techniques.table import TECHNIQUES, technique_of


def test_the_table_holds_exactly_the_steps_of_the_api() -> None:
    assert set(TECHNIQUES) == set(Step.model_fields)


def test_all_techniques_have_one_shape() -> None:
    for technique in TECHNIQUES.values():
        assert list(inspect.signature(technique).parameters) == ["settings", "candidate", "bench"]


def test_a_step_names_its_technique() -> None:
    assert technique_of(Step.model_validate({"quantize": {"scheme": "Int8Static"}})) == "quantize"
