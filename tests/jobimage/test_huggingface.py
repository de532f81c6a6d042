"""Hugging Face directories are read as verified bytes and answer as transformers does; nothing of them is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.jobimage.bench import bench_of
from tests.jobimage.exported import export_bytes
from tests.jobimage.huggingface import IMAGE, IMAGE_MODELS, LENGTH, SIZES, TEXT, TEXT_MODELS, WORDS, load, made, save
from torch import nn

from plimsoll_api.spec import Factorize, FactorizeMethod, Task
from plimsoll_job.errors import UserError
from plimsoll_job.export.graph import signature
from plimsoll_job.figures import count_parameters
from plimsoll_job.load.data import Samples, taken_by
from plimsoll_job.load.examples import example_of
from plimsoll_job.load.inputs import Input, Signature
from plimsoll_job.load.signature import input_names, signature_of
from plimsoll_job.techniques import factorize
from plimsoll_job.techniques.shape import Candidate


def answers(module: nn.Module, inputs: Signature) -> torch.Tensor:
    with torch.no_grad():
        output: torch.Tensor = module(*example_of(inputs, 4))
    return output


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_text_models_answer_as_transformers_and_export_for_any_length(tmp_path: Path, name: str) -> None:
    model = made(name, "ForSequenceClassification", **TEXT_MODELS[name])
    save(tmp_path, model)
    module = load(tmp_path, "TextClassification").take()
    ids, mask = example_of(TEXT, 4)
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask).logits
    assert torch.allclose(answers(module, TEXT), expected, atol=1e-6)
    graph = export_bytes(module, TEXT)
    assert [one.shape for one in signature(onnx.load_from_string(graph))[0]] == [[None, None], [None, None]]
    longer = (Input("input_ids", (30,), "int64", WORDS), Input("attention_mask", (30,), "int64", 2))
    given = example_of(longer, 3)
    (got,) = ort.InferenceSession(graph).run(None, {"input_ids": given[0].numpy(), "attention_mask": given[1].numpy()})
    with torch.no_grad():
        assert np.allclose(got, module(*given).numpy(), atol=1e-5)


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_image_models_answer_as_transformers_and_export(tmp_path: Path, name: str) -> None:
    model = made(name, "ForImageClassification", **IMAGE_MODELS[name])
    save(tmp_path, model)
    loaded = load(tmp_path, "ImageClassification")
    assert loaded.architecture == f"huggingface {name}ForImageClassification"
    with torch.no_grad():
        expected = model(pixel_values=example_of(IMAGE, 4)[0]).logits
    assert torch.allclose(answers(loaded.take(), IMAGE), expected, atol=1e-6)
    export_bytes(loaded.take(), IMAGE)


def test_layers_of_transformers_are_factorized(tmp_path: Path) -> None:
    save(tmp_path, made("Bert", "ForSequenceClassification", **SIZES))
    module = load(tmp_path, "TextClassification").take()
    settings = Factorize(method=FactorizeMethod.SVD, amount="20%")
    applied = factorize.apply(settings, Candidate(module), bench_of(module, signature=TEXT))
    assert count_parameters(applied.candidate.module) <= 0.81 * count_parameters(module)
    export_bytes(applied.candidate.module, TEXT)


def test_an_embedding_is_the_mean_of_the_tokens_that_the_mask_leaves(tmp_path: Path) -> None:
    model = made("Bert", "Model", **SIZES)
    save(tmp_path, model)
    module = load(tmp_path, "Embedding").take()
    ids, mask = example_of(TEXT, 4)
    mask[:, 0] = 1
    with torch.no_grad():
        tokens = model(input_ids=ids, attention_mask=mask).last_hidden_state
        got = module(ids, mask)
    for row in range(4):
        assert torch.allclose(got[row], tokens[row, mask[row] == 1].mean(dim=0), atol=1e-6)
    assert not any("pooler" in name for name in module.state_dict())


TRANSFORMER = {"type": "sentence_transformers.models.Transformer"}
POOLING = {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}
MEAN = {"pooling_mode_mean_tokens": True}


def sentence_transformer(directory: Path, modes: dict[str, bool], *kinds: str) -> None:
    target = save(directory, made("Bert", "Model", **SIZES))
    modules = [
        {"idx": number, "path": f"{number}_{kind}" if number else "", "type": f"sentence_transformers.models.{kind}"}
        for number, kind in enumerate(("Transformer", *kinds))
    ]
    (target / "modules.json").write_text(json.dumps(modules))
    (target / "1_Pooling").mkdir()
    (target / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32} | modes))


def test_sentence_transformers_modules_say_how_vectors_are_made(tmp_path: Path) -> None:
    sentence_transformer(tmp_path, {"pooling_mode_cls_token": True}, "Pooling", "Normalize")
    vectors = answers(load(tmp_path, "Embedding").take(), TEXT)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(4))
    ids, mask = example_of(TEXT, 4)
    with torch.no_grad():
        first = made("Bert", "Model", **SIZES)(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
    assert torch.allclose(vectors, nn.functional.normalize(first, dim=1), atol=1e-6)


@pytest.mark.parametrize(
    ("modes", "kinds", "words"),
    [
        (
            {"pooling_mode_max_tokens": True},
            ("Pooling",),
            r"1_Pooling/config\.json pools by pooling_mode_max_tokens; e",
        ),
        (MEAN | {"pooling_mode_cls_token": True}, ("Pooling",), "pools by pooling_mode_cls_token, pooling_mode_mean_t"),
        ({"pooling_mode_mean_tokens": False}, ("Pooling",), "pools by nothing; expected one of pooling_mode_mean"),
        (
            MEAN,
            ("Pooling", "Dense"),
            "modules Transformer, Pooling, Dense; expected Transformer, Pooling and p",
        ),
        (MEAN, ("Pooling", "Dense", "Normalize"), "modules Transformer, Pooling, Dense, Normalize; expected"),
        (MEAN, ("Pooling", "Normalize", "Normalize"), "modules Transformer, Pooling, Normalize, Normalize; expected"),
        (MEAN, ("Pooling", "Pooling"), "modules Transformer, Pooling, Pooling; expected"),
        (MEAN, ("Normalize",), "modules Transformer, Normalize; expected"),
    ],
)
def test_other_sentence_transformers_are_refused(
    tmp_path: Path, modes: dict[str, bool], kinds: tuple[str, ...], words: str
) -> None:
    sentence_transformer(tmp_path, modes, *kinds)
    with pytest.raises(UserError, match=words):
        load(tmp_path, "Embedding")


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        ([TRANSFORMER, {"type": "mine.Pooling"}], r"modules Transformer, mine\.Pooling; expected"),
        ([{"type": "sentence_transformers.models.CLIPModel"}, POOLING], "modules CLIPModel, Pooling; expected"),
        ([{"type": "mine.Transformer"}, POOLING], r"modules mine\.Transformer, Pooling; expected"),
        ([TRANSFORMER | {"path": "0_BERT"}, POOLING], r"the model in '0_BERT'; expected .* with the path ''"),
        ([TRANSFORMER, POOLING], r"1_Pooling/config\.json, which modules\.json names, is missing"),
        ([TRANSFORMER], "modules Transformer; expected"),
        ([], "modules none; expected"),
        ({"0": "Transformer"}, r"modules\.json is no list of modules"),
        (["Transformer"], r"modules\.json is no list of modules"),
    ],
)
def test_modules_that_are_not_sentence_transformers_are_refused(tmp_path: Path, modules: Any, words: str) -> None:
    target = save(tmp_path, made("Bert", "Model", **SIZES))
    (target / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UserError, match=words):
        load(tmp_path, "Embedding")


def test_weights_in_several_files_are_one_model(tmp_path: Path) -> None:
    model = made("Bert", "ForSequenceClassification", **SIZES)
    target = save(tmp_path, model, max_shard_size="20KB")
    assert len(list(target.glob("*.safetensors"))) > 1
    with torch.no_grad():
        expected = model(*example_of(TEXT, 4)[:1], attention_mask=example_of(TEXT, 4)[1]).logits
    assert torch.allclose(answers(load(tmp_path, "TextClassification").take(), TEXT), expected, atol=1e-6)


def test_half_precision_weights_are_computed_in_single(tmp_path: Path) -> None:
    save(tmp_path, made("Bert", "ForSequenceClassification", **SIZES).half())
    module = load(tmp_path, "TextClassification").take()
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


@pytest.mark.parametrize("kernel", ["flash_attention_2", "someone/kernel"])
def test_a_kernel_that_the_settings_name_is_not_asked_for(tmp_path: Path, kernel: str) -> None:
    folder = save(tmp_path, made("Bert", "ForSequenceClassification", **SIZES))
    config = json.loads((folder / "config.json").read_text())
    before = answers(load(tmp_path, "TextClassification").take(), TEXT)
    (folder / "config.json").write_text(json.dumps(config | {"_attn_implementation": kernel}))
    assert torch.equal(answers(load(tmp_path, "TextClassification").take(), TEXT), before)


def test_the_digest_changes_with_every_file_that_is_read(tmp_path: Path) -> None:
    target = save(tmp_path, made("Bert", "ForSequenceClassification", **SIZES))
    before = load(tmp_path, "TextClassification")
    assert load(tmp_path, "TextClassification", digest=before.digest).digest == before.digest
    (target / "README.md").write_text("not read")
    assert load(tmp_path, "TextClassification").digest == before.digest
    (target / "tokenizer.json").write_text("{}")
    assert load(tmp_path, "TextClassification").digest != before.digest
    with pytest.raises(UserError, match=r"spec\.model\.digest: .* has the digest sha256:"):
        load(tmp_path, "TextClassification", digest=before.digest)


def test_weights_of_integers_are_not_taken_for_numbers(tmp_path: Path) -> None:
    file = save(tmp_path, made("Bert", "ForSequenceClassification", **SIZES)) / "model.safetensors"
    name = "bert.encoder.layer.1.output.dense.weight"
    weights = load_file(file)
    save_file(weights | {name: (weights[name] * 100).to(torch.int8)}, file, {"format": "pt"})
    with pytest.raises(UserError, match=rf"tensors of the wrong type: {name} is torch\.int8 instead of torch\.float32"):
        load(tmp_path, "TextClassification")


def change_config(target: Path, **changes: Any) -> None:
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"auto_map": {"AutoModel": "modeling.Mine"}},
            r"auto_map\), which is not run unless spec\.allowCodeExec",
        ),
        ({"model_type": "bret"}, "'bret' of config.json is not known to transformers; did you mean"),
        ({"architectures": ["BertForTokenClassification"]}, "TextClassification takes a model ForSequenceClassifi"),
        ({"architectures": None}, "config.json says nothing"),
        ({"quantization_config": {"bits": 4}}, "quantized already"),
        ({"num_attention_heads": 5}, "cannot build BertForSequenceClassification"),
        ({"hidden_size": "wide"}, "config.json cannot be used"),
        ({"num_hidden_layers": 3}, r"spec\.model\.uri: the weights do not fit .*missing: bert\.encoder\.layer\.2"),
        ({"num_hidden_layers": 1}, r"the weights do not fit .*unexpected: bert\.encoder\.layer\.1"),
        (
            {"intermediate_size": 65},
            r"^spec\.model\.uri: the weights do not fit BertForSequenceClassification; tensors of the wrong shape: "
            r"bert\.encoder\.layer\.0\.intermediate\.dense\.bias is \[64\] instead of \[65\], .* and 1 more$",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    target = save(tmp_path, made("Bert", "ForSequenceClassification", **SIZES))
    change_config(target, **changes)
    with pytest.raises(UserError, match=words):
        load(tmp_path, "TextClassification")


def test_pickled_weights_are_refused_with_how_to_convert_them(tmp_path: Path) -> None:
    target = save(tmp_path, made("Bert", "ForSequenceClassification", **SIZES))
    weights = load_file(target / "model.safetensors")
    (target / "model.safetensors").unlink()
    torch.save(weights, target / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin, a pickle, .* save_pretrained, which writes"):
        load(tmp_path, "TextClassification")


def test_what_is_no_directory_of_transformers_is_refused(tmp_path: Path) -> None:
    target = save(tmp_path, made("Bert", "ForSequenceClassification", **SIZES))
    with pytest.raises(UserError, match="expected a directory with"):
        load(tmp_path, "TextClassification", uri="pvc://models/given/model.safetensors")
    (target / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../secret.safetensors"}}')
    (target / "model.safetensors").rename(target / "other.safetensors")
    with pytest.raises(UserError, match="names no safetensors files beside it"):
        load(tmp_path, "TextClassification")
    (target / "model.safetensors.index.json").unlink()
    with pytest.raises(UserError, match=r"holds no model\.safetensors"):
        load(tmp_path, "TextClassification")
    (target / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is not JSON"):
        load(tmp_path, "TextClassification")
    (target / "config.json").unlink()
    with pytest.raises(UserError, match=r"holds no config\.json"):
        load(tmp_path, "TextClassification")


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    target = save(tmp_path, made("Bert", "ForSequenceClassification", **SIZES))
    weights = load_file(target / "model.safetensors")
    weights["classifier.bias"][0] = float("nan")
    save_file(weights, target / "model.safetensors")
    with pytest.raises(UserError, match=r"'classifier\.bias' .* holds NaN"):
        load(tmp_path, "TextClassification")


def test_tokens_beyond_the_vocabulary_are_refused(tmp_path: Path) -> None:
    save(tmp_path, made("Bert", "ForSequenceClassification", **SIZES))
    ids = np.full((2, LENGTH), WORDS)
    samples = Samples({"input_ids": ids, "attention_mask": np.ones_like(ids)}, None, "")
    with pytest.raises(UserError, match="f: token 50 is beyond the model's vocabulary of 50"):
        signature_of(load(tmp_path, "TextClassification").take(), {"f": samples}, Task.TEXT_CLASSIFICATION)


def pairs(second: bool) -> Samples:
    ids, mask = (one.numpy() for one in example_of(TEXT, 4))
    types = np.zeros_like(ids)
    types[:, LENGTH // 2 :] = int(second)
    return Samples({"input_ids": ids, "attention_mask": mask, "token_type_ids": types}, None, "")


@pytest.mark.parametrize(("name", "typed"), [("Bert", True), ("DistilBert", False)])
def test_the_second_text_of_a_pair_is_told_from_the_first(tmp_path: Path, name: str, typed: bool) -> None:
    model = made(name, "ForSequenceClassification", **TEXT_MODELS[name])
    save(tmp_path, model)
    module = load(tmp_path, "TextClassification").take()
    assert input_names(module, [pairs(second=False)]) == ("input_ids", "attention_mask")
    names = input_names(module, [None, pairs(second=True)])
    assert ("token_type_ids" in names) == typed
    samples = taken_by(pairs(second=True), names)
    inputs = signature_of(module, {"f": samples}, Task.TEXT_CLASSIFICATION)
    given = {one: torch.from_numpy(array) for one, array in samples.inputs.items()}
    with torch.no_grad():
        expected = model(**given).logits
        assert torch.allclose(module(*given.values()), expected, atol=1e-6)
    graph = ort.InferenceSession(export_bytes(module, inputs))
    assert [one.name for one in graph.get_inputs()] == list(names)
    assert np.allclose(graph.run(None, dict(samples.inputs))[0], expected.numpy(), atol=1e-5)
