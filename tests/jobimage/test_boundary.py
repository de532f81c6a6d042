"""Whose an exception is, and where it was raised: what a library raises is told of the field, what we raise is ours."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper
from tests.jobimage.claims import PRUNE, Claims, compressed
from torch import nn

from plimsoll_api.sources import NamedArchitecture
from plimsoll_job.boundary import boundary, unforeseen
from plimsoll_job.child import run_child
from plimsoll_job.ending import summary_of
from plimsoll_job.errors import InternalError, PlimsollError, TransientError, UserError
from plimsoll_job.export.onnx_export import _found, trace_named
from plimsoll_job.export.outputs import torch_export
from plimsoll_job.load.architectures.factory import build_factory
from plimsoll_job.load.architectures.named import build_timm
from plimsoll_job.load.inputs import single
from plimsoll_job.memory import peak_memory_bytes
from plimsoll_job.techniques.observe import tensors_of
from plimsoll_job.techniques.prune.coupling import find_coupling
from plimsoll_job.techniques.table import TECHNIQUES


def told(raising: Callable[[], Any]) -> UserError:
    with pytest.raises(UserError) as caught, boundary("spec.steps[0].prune", "it cannot be pruned"):
        raising()
    assert caught.value.message.startswith("spec.steps[0].prune: it cannot be pruned: ")
    return caught.value


class Picky(nn.Module):
    """Raises what its code chose; the layer that does is within two others."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        raise self.error


@pytest.mark.parametrize("error", [KeyError("x"), AssertionError(), NotImplementedError("no"), ZeroDivisionError("x")])
def test_what_a_models_code_raises_is_told_of_its_layer(error: Exception) -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), Picky(error)))
    assert f"at layer 1.1: {type(error).__name__}" in told(lambda: module(torch.zeros(1, 2))).message


def test_what_torch_raises_is_told_of_the_layer() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(2, 3))
    assert "torch, at layer 1: RuntimeError: " in told(lambda: module(torch.zeros(1, 2))).message


def test_what_onnx_runtime_raises_is_told() -> None:
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "x"], ["y"], name="product")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    message = told(lambda: ort.InferenceSession(model, providers=["CPUExecutionProvider"])).message
    assert "ONNX Runtime: Fail" in message
    assert "product" in message


def test_words_of_pages_are_cut_to_their_first_paragraph() -> None:
    message = told(lambda: nn.Sequential(Picky(ValueError(f"short\n\n{'long ' * 1000}")))(torch.zeros(1))).message
    assert message.endswith("ValueError: short")
    assert len(told(lambda: nn.Sequential(Picky(ValueError("long " * 1000)))(torch.zeros(1))).message) < 500


@pytest.mark.parametrize(
    "fault",
    [
        lambda: peak_memory_bytes(1),  # type: ignore[call-arg]
        lambda: tensors_of({"x": np.array(["text"])}),
        lambda: TECHNIQUES["no such"],
    ],
)
def test_what_our_own_code_raises_is_ours(fault: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # Here the tests are part of our code: what they do wrong stands for what a technique does.
    monkeypatch.setattr("plimsoll_job.boundary.OWN_PACKAGES", {"plimsoll_job", "tests", "numpy"})
    with pytest.raises((TypeError, KeyError)) as caught, boundary("spec.steps[0].prune", "it cannot be pruned"):
        fault()
    ended = unforeseen(caught.value)
    assert isinstance(ended, InternalError)
    assert "a fault of Plimsoll" in ended.message
    assert type(caught.value).__name__ in ended.message


def test_values_that_do_not_fit_our_own_types_are_ours() -> None:
    with pytest.raises(ValueError, match="outcome") as caught, boundary("spec.steps[0].prune", "it cannot be pruned"):
        summary_of("Never", "Because", "of this")  # type: ignore[arg-type]
    assert "in plimsoll_job.ending, line" in unforeseen(caught.value).message


def test_an_error_in_place_of_a_librarys_is_the_librarys() -> None:
    def replaced() -> None:
        try:
            nn.Linear(2, 2)(torch.zeros(1, 3))
        except RuntimeError as error:
            from plimsoll_job.load.directory import parse_json  # noqa: PLC0415

            assert parse_json is not None
            raise RuntimeError("told anew") from error

    assert "RuntimeError: told anew" in told(replaced).message


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "OutOfMemory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "OutOfMemory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "OutOfMemory"),
        (RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable"), "GpuUnusable"),
        (RuntimeError("[third_party/gloo/transport/tcp/pair.cc] Connection closed by peer [::1]:1"), "PeerLost"),
        (OSError(errno.ENOSPC, "No space left on device"), "StoreUnreadable"),
        (OSError(errno.ESTALE, "Stale file handle"), "StoreUnreadable"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "PeerLost"),
    ],
)  # fmt: skip
def test_what_waiting_mends_is_tried_again_wherever_it_is_raised(error: Exception, reason: str) -> None:
    with pytest.raises(TransientError) as caught, boundary("spec.steps[0].prune", "it cannot be pruned"):
        nn.Sequential(Picky(error))(torch.zeros(1))
    assert caught.value.reason == reason
    assert unforeseen(error).reason == reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [(MemoryError("no room"), "OutOfMemory"), (OSError(errno.ENOSPC, "No space left on device"), "StoreUnreadable")],
)
def test_what_waiting_mends_is_tried_again_where_the_model_would_be_blamed(
    error: Exception, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node without memory, or a disk that was full, and the request was told to change."""

    def raises(*_: Any, **__: Any) -> Any:
        raise error

    session = SimpleNamespace(run=raises)
    failing = nn.Sequential(Picky(error))
    for name in ("torch.export.save", "timm.create_model", "onnx.checker.check_model", "plimsoll_job.zoo.digits_cnn"):
        monkeypatch.setattr(name, raises)
    for called in (
        lambda: _found(session, {}),
        lambda: find_coupling(failing, single((1,))),
        lambda: torch_export(nn.Linear(1, 1), single((1,)), tmp_path / "model.pt2"),
        lambda: build_timm(NamedArchitecture(name="resnet18")),
        lambda: build_factory("plimsoll_job.zoo:digits_cnn"),
    ):
        with pytest.raises(TransientError) as caught:
            called()
        assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("raised", "kind", "reason"),
    [
        ("numpy.exceptions.ArrayMemoryError('Unable to allocate 3. GiB')", TransientError, "OutOfMemory"),
        ("OSError(28, 'No space left on device')", TransientError, "StoreUnreadable"),
        ("ValueError('28 is no size')", UserError, "Wrong"),
    ],
)
def test_what_waiting_mends_is_tried_again_where_a_process_of_its_own_met_it(
    raised: str, kind: type[PlimsollError], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"class ArrayMemoryError(MemoryError): pass\nraise {raised.replace('numpy.exceptions.', '')}\n"
    (tmp_path / "raising.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(kind) as caught:
        run_child("raising", [], does="raises", refusal="spec.x: it raises", reason="Wrong")
    assert caught.value.reason == reason


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "no such file"), OSError("libx.so: cannot open")])
def test_what_waiting_does_not_mend_is_not_tried_again(error: OSError) -> None:
    assert isinstance(unforeseen(error), InternalError)


@pytest.mark.parametrize(("free", "kind"), [(100, UserError), (10, TransientError)])
def test_memory_of_a_gpu_is_waited_for_where_others_hold_it(
    free: int, kind: type[PlimsollError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (free, 1000))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda: 850)
    with pytest.raises(kind) as caught, boundary("spec.steps[0].prune", "it cannot be pruned"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.00 GiB free.")
    assert "spec.steps[0].prune" in caught.value.message


def test_a_step_that_a_library_refuses_is_the_requests_and_named(
    claims: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        nn.Sequential(nn.Linear(2, 3))(torch.zeros(1, 5))

    monkeypatch.setattr("plimsoll_job.compress.TECHNIQUES", {"prune": refuse})
    with pytest.raises(UserError, match=r"^spec\.steps\[0\]\.prune: the step cannot be taken .*torch, at layer 0"):
        compressed(claims, [PRUNE])


def test_a_step_of_ours_that_is_wrong_is_no_fault_of_the_request(
    claims: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plimsoll_job.compress.TECHNIQUES", {})
    with pytest.raises(KeyError, match="prune"):
        compressed(claims, [PRUNE])


def test_torn_files_of_any_kind_are_the_requests(claims: Claims, tmp_path: Path) -> None:
    """Bytes that a reader did not foresee may make its library raise anything."""
    for ending in ("parquet", "csv", "jsonl", "npz"):
        for content in (b"", b"PAR1" * 8, b"PK\x03\x04" + bytes(64), json.dumps({"a": [1]}).encode(), b"\xff\xfe\x00"):
            (claims.directory / "data" / f"torn.{ending}").write_bytes(content)
            with pytest.raises(UserError):
                compressed(claims, [PRUNE], calibration={"uri": f"pvc://data/torn.{ending}"})


def test_a_layer_that_cannot_be_traced_is_called_as_the_model_calls_it() -> None:
    module = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(2, 2), Picky(KeyError("x"))))
    with pytest.raises(UserError, match=r"cannot be exported to ONNX: .*, at layer 1\.1: KeyError"):
        trace_named(module, single((2,)))
