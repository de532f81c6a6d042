"""An ONNX model goes the whole way of a job: published as it is, quantized in every way, measured, and judged."""

from __future__ import annotations

import json
from typing import Any

import onnx
import pytest
import torch
import transformers
from onnx import TensorProto, helper
from safetensors.torch import load_file
from tests.jobimage.claims import INT8, Claims, accuracies, published
from tests.jobimage.graphs import exported, save
from tests.jobimage.texts import WORD_LEVEL, tagged

from plimsoll_api.report import Report, Summary
from plimsoll_job import compress as flow
from plimsoll_job.errors import UserError
from plimsoll_job.evaluate.flow import measure
from plimsoll_job.load.store import Store
from plimsoll_job.progress import Reporter
from plimsoll_job.zoo import wine_mlp

SILENT = Reporter(emit=lambda _: None)
MODEL = {"model": {"uri": "pvc://models/given", "architecture": {"onnx": {}}}, "train": None}


@pytest.fixture
def given(claims: Claims) -> Claims:
    """The claims of the wines, with their model as an ONNX file of a batch of one."""
    module = wine_mlp()
    module.load_state_dict(load_file(claims.weights))
    save(claims.directory, exported(module, torch.zeros(1, 13), free=False))
    return claims


def compressed(claims: Claims, quantize: dict[str, Any], **changes: Any) -> Summary:
    plan = claims.plan([{"quantize": quantize}], **MODEL | changes)
    summary = flow.compress(plan, Store(claims=claims.directory), SILENT)
    torch.set_num_threads(1)
    return summary


def measured(claims: Claims, summary: Summary, **changes: Any) -> Report:
    assert summary.baseline is not None
    assert summary.candidate is not None
    request = claims.request(summary.baseline, summary.candidate, by_step=True, **changes)
    return measure(request, Store(claims=claims.directory), SILENT)


def test_it_goes_the_whole_way_under_the_names_that_it_came_with(given: Claims) -> None:
    summary = compressed(given, INT8["quantize"])
    baseline, candidate = accuracies(measured(given, summary))
    assert candidate > baseline - 0.05 > 0.85
    for ref in (summary.baseline, summary.candidate):
        manifest = published(given, ref)
        assert (manifest["inputs"][0]["name"], manifest["inputs"][0]["shape"]) == ("pixels", [None, 13])
        assert (manifest["outputs"][0]["name"], manifest["outputs"][0]["shape"]) == ("scores", [None, 3])
        assert manifest["lineage"]["architecture"] == "onnx"
    floats = [one for one in wine_mlp().state_dict().values() if one.is_floating_point()]
    assert published(given, summary.baseline)["parameters"] == sum(one.numel() for one in floats)
    assert summary.baseline is not None
    assert summary.candidate is not None
    assert summary.candidate.size_bytes < 0.5 * summary.baseline.size_bytes
    assert compressed(given, INT8["quantize"]) == summary


def test_a_second_run_gives_the_same_artifacts(given: Claims) -> None:
    first = compressed(given, INT8["quantize"])
    again = compressed(given, INT8["quantize"], output={"uri": "pvc://out/again"})
    assert again.baseline is not None
    assert first.baseline is not None
    assert again.baseline.digest == first.baseline.digest
    bytes_of = [
        (given.directory / one.candidate.uri.removeprefix("pvc://") / "model.onnx").read_bytes()
        for one in (first, again)
        if one.candidate
    ]
    assert bytes_of[0] == bytes_of[1]


@pytest.mark.parametrize("scheme", ["Float16", "Int8Dynamic", "Int4WeightOnly"])
def test_every_scheme_takes_it(given: Claims, scheme: str) -> None:
    summary = compressed(given, {"scheme": scheme})
    baseline, candidate = accuracies(measured(given, summary))
    assert candidate > baseline - 0.05
    (record,) = published(given, summary.candidate)["lineage"]["steps"]
    assert record["details"]["bytes"] < record["details"]["floatBytes"]


@pytest.mark.parametrize("scheme", ["Int8Dynamic", "Int8Static"])
def test_a_pipeline_that_scales_its_inputs_first_is_quantized(given: Claims, scheme: str) -> None:
    """As scikit-learn's are written: nobody infers the types of what an operator of another domain answers."""
    wanted = accuracies(measured(given, compressed(given, {"scheme": scheme})))
    model = onnx.load(str(given.directory / "models" / "given" / "model.onnx"))
    (inputs,) = model.graph.input
    for node in model.graph.node:
        node.input[:] = ["scaled" if name == inputs.name else name for name in node.input]
    settings = {"offset": [0.5] * 13, "scale": [4.0]}
    scaler = helper.make_node("Scaler", ["raw"], ["scaled"], domain="ai.onnx.ml", **settings)
    # What the model was trained on is as it was: four times that of which a half is taken away.
    model.graph.node.insert(0, helper.make_node("Div", [inputs.name, "four"], ["quarter"]))
    model.graph.node.insert(1, helper.make_node("Add", ["quarter", "half"], ["raw"]))
    for name, number in (("four", 4.0), ("half", 0.5)):
        model.graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, [], [number]))
    model.graph.node.insert(2, scaler)
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    save(given.directory, model)
    baseline, candidate = accuracies(measured(given, compressed(given, {"scheme": scheme})))
    assert baseline == wanted[0]
    assert candidate > baseline - 0.05


def test_auto_measures_on_it(given: Claims) -> None:
    auto = {"maxError": "50%", "maxLatencyRatio": "100", "latency": {"batchSizes": [1], "rounds": 8, "processes": 2}}
    summary = compressed(given, {"scheme": "Auto", "auto": auto})
    (record,) = published(given, summary.candidate)["lineage"]["steps"]
    assert len(record["details"]["table"]) > 4
    assert record["details"]["scheme"] != "Float32"


def test_layers_stay_float_by_the_names_of_their_nodes(given: Claims) -> None:
    path = given.directory / "models" / "given" / "model.onnx"
    names = [node.name for node in onnx.load(str(path)).graph.node if node.op_type == "Gemm"]
    summary = compressed(given, {"scheme": "Int8Static", "exclude": {"layers": [names[-1]]}})
    (record,) = published(given, summary.candidate)["lineage"]["steps"]
    assert [one["dtype"] for one in record["details"]["layers"]] == ["int8", "int8", "float32"]
    with pytest.raises(
        UserError, match=rf"exclude\.layers\[0\]: the model has no module '{names[-1]}x'; did you mean "
    ):
        compressed(given, {"scheme": "Int8Static", "exclude": {"layers": [f"{names[-1]}x"]}})


def test_a_layer_may_have_any_name_that_exporters_give(given: Claims) -> None:
    path = given.directory / "models" / "given" / "model.onnx"
    model = onnx.load(str(path))
    names = ["model/dense/MatMul;model/dense/BiasAdd", "Layer* 1 [Gemm]", "(2)"]
    for node, name in zip((node for node in model.graph.node if node.op_type == "Gemm"), names, strict=True):
        node.name = name
    save(given.directory, model)
    summary = compressed(given, {"scheme": "Int8Static", "exclude": {"layers": names[:2]}})
    (record,) = published(given, summary.candidate)["lineage"]["steps"]
    assert {one["layer"]: one["dtype"] for one in record["details"]["layers"]} == dict(
        zip(names, ["float32", "float32", "int8"], strict=True)
    )


def test_without_data_the_graph_tells_its_inputs(given: Claims) -> None:
    summary = compressed(given, {"scheme": "Float16"}, calibration=None)
    assert summary.candidate is not None
    free = onnx.load(str(given.directory / "models" / "given" / "model.onnx"))
    free.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "columns"
    save(given.directory, free, "free/model.onnx")
    other = {"uri": "pvc://models/free/model.onnx", "architecture": {"onnx": {}}}
    with pytest.raises(UserError, match=r"spec\.data\.calibration: is needed .* since the graph leaves it open"):
        compressed(given, {"scheme": "Float16"}, calibration=None, model=other)


def test_text_comes_with_its_tokenizer_and_all_inputs_that_the_graph_takes(given: Claims) -> None:
    sizes: dict[str, Any] = {
        "vocab_size": 64, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 128, "max_position_embeddings": 16, "num_labels": 2, "attn_implementation": "eager",
    }  # fmt: skip
    torch.manual_seed(0)
    model: Any = transformers.BertForSequenceClassification(transformers.BertConfig(**sizes))
    names = ["input_ids", "token_type_ids", "attention_mask"]
    axes = {name: {0: "batch", 1: "length"} for name in names} | {"scores": {0: "batch"}}

    class Ordered(torch.nn.Module):
        """Takes its inputs in the order of BERT's own exports."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: torch.Tensor, types: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = self.model(input_ids=ids, token_type_ids=types, attention_mask=mask).logits
            return scores

    example = torch.ones(1, 8, dtype=torch.long)
    graph = exported(Ordered(), example, example * 0, example, input_names=names, dynamic_axes=axes)
    folder = save(given.directory, graph, "text/model.onnx").parent
    (folder / "tokenizer.json").write_text(WORD_LEVEL)
    lines = [{"text": " ".join(line["words"]), "labels": line["tags"][0] % 2} for line in tagged(40, seed=0)]
    file = given.directory / "data" / "texts.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = {"uri": "pvc://data/texts.jsonl", "text": ["text"], "maxLength": 12}
    onnx_text = {"model": {"uri": "pvc://models/text", "architecture": {"onnx": {}}}, "task": "TextClassification"}
    summary = compressed(given, {"scheme": "Int8Dynamic"}, calibration=data, **onnx_text)
    manifest = published(given, summary.candidate)
    assert [one["name"] for one in manifest["inputs"]] == names
    assert [one["shape"] for one in manifest["inputs"]] == [[None, None]] * 3
    report = measured(given, summary, task="TextClassification", data=data)
    assert report.flips is not None
    assert report.flips.changed <= 4


def test_what_was_published_can_be_given_again_and_what_was_quantized_cannot(given: Claims) -> None:
    summary = compressed(given, INT8["quantize"])
    for ref, refused in ((summary.baseline, False), (summary.candidate, True)):
        assert ref is not None
        model = {"uri": f"{ref.uri}/model.onnx", "architecture": {"onnx": {}}}
        if refused:
            with pytest.raises(UserError, match="quantized already"):
                compressed(given, {"scheme": "Float16"}, model=model)
        else:
            assert compressed(given, {"scheme": "Float16"}, model=model).baseline is not None
