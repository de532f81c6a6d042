"""The operator against the real API server and the real job controller; the test plays the kubelet."""

from __future__ import annotations

import pytest
from tests.integration.operator_run import OperatorRun, Space
from tests.integration.puppet import Puppet
from tests.integration.stories import all_well, compression_job, model_release

pytestmark = pytest.mark.apiserver


def test_a_job_that_passes_becomes_a_revision(space: Space, operator: OperatorRun, puppet: Puppet) -> None:
    puppet.script = all_well
    space.create(model_release("digits"))
    space.create(compression_job("one", releaseRef={"name": "digits"}))
    status = space.wait_phase("one", "Succeeded")
    assert status["verdict"] == "Pass"
    assert status["revision"] == 2
    assert [item["spec"]["revision"] for item in space.all("ModelRevision")] == [1, 2]
