"""What is said and done of a pod's GPU, as far as a machine without one tells; other tests run on both kinds."""

from __future__ import annotations

import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from plimsoll_job import gpu, sessions
from plimsoll_job.errors import UserError
from plimsoll_job.evaluate import environment
from plimsoll_job.gpu import gpu_names
from plimsoll_job.sessions import CPU, CUDA, open_served, serving_gpu

WITHOUT_GPU = pytest.mark.skipif(bool(gpu_names()), reason="of machines without a GPU")
NAME = "NVIDIA Imagined"


def relu() -> bytes:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", ends[:1], ends[1:])
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


@WITHOUT_GPU
def test_without_a_gpu_the_processor_serves() -> None:
    assert gpu_names() == ()
    assert serving_gpu() is None
    assert open_served(relu(), threads=1).get_providers() == [CPU]
    assert environment.describe_environment(threads=1).gpu is None
    assert environment.idle_gpu_notes() == []


@WITHOUT_GPU
@pytest.mark.skipif(CUDA not in ort.get_available_providers(), reason="of ONNX Runtime's package for GPUs")
def test_a_gpu_that_onnx_runtime_cannot_use_is_an_error_and_no_measurement_of_the_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions, "gpu_names", lambda: (NAME,))
    with pytest.raises(UserError, match=f"cannot use the GPU, {NAME}") as error:
        open_served(relu(), threads=1)
    assert error.value.reason == "GpuUnusable"
    assert error.value.message.startswith("spec.runtime.resources.limits: ")


def test_a_runtime_for_processors_says_that_it_leaves_the_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CPU])
    for module in (gpu, sessions, environment):
        monkeypatch.setattr(module, "gpu_names", lambda: (NAME,))
    assert open_served(relu(), threads=1).get_providers() == [CPU]
    (note,) = environment.idle_gpu_notes()
    assert NAME in note
    assert "the times are those of the processor" in note
