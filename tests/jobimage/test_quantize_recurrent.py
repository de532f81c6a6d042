"""LSTM, GRU and RNN in smaller formats: an LSTM by the runtime's dynamic kernel, all others by their weights."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from tests.jobimage.bench import bench_of, candidate_of, samples_of
from torch import nn

from plimsoll_api.spec import Quantize
from plimsoll_job.export.lean import read_lean
from plimsoll_job.figures import count_macs
from plimsoll_job.load.inputs import single
from plimsoll_job.scratch import HeldFile
from plimsoll_job.techniques import quantize
from plimsoll_job.techniques.shape import Applied

SHAPE = (6, 16)


class Reader(nn.Module):
    """A recurrent layer of that kind with most of the weights, read by a linear one."""

    input_shape = SHAPE

    def __init__(self, kind: str, *, own_state: bool = False) -> None:
        super().__init__()
        self.core = getattr(nn, kind)(16, 48, num_layers=2, bidirectional=True, batch_first=True)
        self.first = nn.Parameter(torch.randn(4, 1, 48)) if own_state else None
        self.head = nn.Linear(96, 5)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        state = None if self.first is None else self.first.repeat(1, rows.shape[0], 1)
        logits: torch.Tensor = self.head(self.core(rows, state)[0][:, -1])
        return logits


def quantized(module: nn.Module, scheme: str, **more: object) -> Applied:
    bench = bench_of(module, calibration=samples_of(SHAPE, 64))
    return quantize.apply(Quantize.model_validate({"scheme": scheme} | more), candidate_of(module), bench)


def operators(graph: HeldFile | None) -> list[str]:
    assert graph is not None
    return [node.op_type for node in onnx.load(graph.path).graph.node]


def built(kind: str, *, own_state: bool = False) -> Reader:
    torch.manual_seed(0)
    return Reader(kind, own_state=own_state).eval()


@pytest.mark.parametrize("own_state", [False, True], ids=["from zero", "own state"])
@pytest.mark.parametrize("scheme", ["Int8Static", "Int8Dynamic", "Float16", "BFloat16"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_weights_of_every_kind_are_stored_smaller_and_answer_nearly_alike(
    kind: str, scheme: str, own_state: bool
) -> None:
    if kind == "LSTM" and own_state:
        pytest.skip("it has two states")
    done = quantized(built(kind, own_state=own_state), scheme)
    assert done.details["bytes"] < (0.33 if scheme.startswith("Int8") else 0.55) * done.details["floatBytes"]
    assert done.details["fidelity"]["error"] < 0.05
    # The state that it begins with is no layer's.
    assert all(one.kind == "Tile" and one.share < 0.01 for one in done.left)
    rows = {row["layer"]: row["dtype"] for row in done.details["layers"]}
    assert rows.keys() == {"core", "head"}
    assert FLOAT not in rows.values()


FLOAT = "float32"


@pytest.mark.parametrize(("kind", "computes"), [("LSTM", True), ("GRU", False), ("RNN", False)])
def test_only_an_lstm_computes_in_int8(kind: str, computes: bool) -> None:
    module = built(kind)
    graph = quantized(module, "Int8Dynamic").candidate.graph
    assert operators(graph).count("DynamicQuantizeLSTM") == 2 * computes
    assert operators(graph).count(kind) == 2 * (not computes)
    assert graph is not None
    assert count_macs(module, single(SHAPE), graph.path).total == count_macs(module, single(SHAPE)).total


def test_what_is_computed_with_has_seven_bits_and_what_is_stored_eight() -> None:
    largest = {}
    for scheme in ("Int8Dynamic", "Int8Static"):
        graph = quantized(built("LSTM"), scheme).candidate.graph
        assert graph is not None
        model = read_lean(graph.path)
        recurrent = [one for one in model.proto.graph.initializer if len(one.dims) == 3]
        largest[scheme] = max(int(np.abs(model.array(one).astype(int)).max()) for one in recurrent)
    assert largest == {"Int8Dynamic": 63, "Int8Static": 127}


def test_a_recurrent_layer_stays_float_by_name_and_is_told_with_its_share() -> None:
    done = quantized(built("GRU"), "Int8Static", exclude={"layers": ["core"]})
    assert [(one.layer, one.kind, one.reason) for one in done.left] == [("core", "GRU", "exclude.layers names core")]
    assert done.left[0].share > 0.9


def test_zeros_of_a_recurrent_layer_stay_zero() -> None:
    module = built("LSTM")
    with torch.no_grad():
        for name, weight in module.core.named_parameters():
            if name.startswith("weight"):
                weight[:, ::2] = 0
    zeros = sum(int((one == 0).sum()) for one in module.core.parameters())
    assert quantized(module, "Int8Static").candidate.zero_weights >= zeros


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_model_that_computes_in_halves_keeps_recurrent_layers_in_float(kind: str) -> None:
    done = quantized(built(kind), "Float16", compute="Float16")
    assert done.details["fidelity"]["error"] < 0.01
    assert [one.kind for one in done.left] == [kind]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="qemu-user is not installed")
def test_a_processor_without_vnni_answers_the_same(tmp_path: Path) -> None:
    module = built("LSTM")
    graph = quantized(module, "Int8Dynamic").candidate.graph
    assert graph is not None
    assert "DynamicQuantizeLSTM" in operators(graph)
    rows = samples_of(SHAPE, 16).inputs["inputs"]
    np.save(tmp_path / "rows.npy", rows)
    program = (
        "import numpy, onnxruntime, sys; session = onnxruntime.InferenceSession(sys.argv[1]);"
        "numpy.save(sys.argv[3], session.run(None, {'inputs': numpy.load(sys.argv[2])})[0])"
    )
    arguments = [sys.executable, "-c", program, str(graph.path), f"{tmp_path}/rows.npy", f"{tmp_path}/answers.npy"]
    subprocess.run(["qemu-x86_64", "-cpu", "Haswell", *arguments], check=True, capture_output=True)
    here = ort.InferenceSession(graph.path).run(None, {"inputs": rows})[0]
    assert np.abs(np.load(tmp_path / "answers.npy") - here).max() < 0.02 * here.std()
