"""What sentence-transformers does to texts before its tokenizer is done here too, also where artifacts are measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.jobimage.huggingface import SIZES, load, made, save
from tests.jobimage.texts import WORD_LEVEL

from plimsoll_api.artifact import SENTENCE_FILE
from plimsoll_api.plan import EvaluationRequest, Plan
from plimsoll_job import compress as flow
from plimsoll_job.errors import UserError
from plimsoll_job.evaluate.contestant import enter
from plimsoll_job.load.artifact import open_artifact
from plimsoll_job.load.plan import load_plan
from plimsoll_job.load.sentences import Sentences
from plimsoll_job.load.store import Store
from plimsoll_job.progress import Reporter

SILENT = Reporter(emit=lambda _: None)
SETTINGS = {"max_seq_length": 6, "do_lower_case": True}
#: As the newest releases write it.
NEW = SETTINGS | {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}


def given(claims: Path, settings: Any, name: str = SENTENCE_FILE) -> Path:
    """Write a model of sentence-transformers and texts of ten words, some in capitals; return the model's directory."""
    target = save(claims, made("Bert", "Model", **SIZES | {"vocab_size": 64}))
    (target / "tokenizer.json").write_text(WORD_LEVEL)
    modules = [
        {"path": path, "type": f"sentence_transformers.models.{kind}"}
        for path, kind in (("", "Transformer"), ("1_Pooling", "Pooling"))
    ]
    (target / "modules.json").write_text(json.dumps(modules))
    (target / "1_Pooling").mkdir()
    (target / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    (target / name).write_text(settings if isinstance(settings, str) else json.dumps(settings))
    (claims / "data").mkdir()
    (claims / "out").mkdir()
    lines = [" ".join(f"{'wW'[row % 2]}{2 + (row + at) % 60}" for at in range(10)) for row in range(40)]
    (claims / "data" / "a.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return target


def plan(**changes: Any) -> Plan:
    source = {"uri": "pvc://data/a.jsonl", "text": ["text"], "maxLength": 12}
    value = {
        "image": "",
        "model": {"uri": "pvc://models/given", "architecture": {"huggingface": {}}},
        "task": "Embedding",
        "calibration": source,
        "steps": [{"quantize": {"scheme": "Int8Dynamic"}}],
        "seed": 0,
        "output": {"uri": "pvc://out/run"},
    }
    return Plan.model_validate(value | changes)


@pytest.mark.parametrize("settings", [SETTINGS, NEW])
def test_texts_are_lowered_and_cut_where_the_artifact_is_measured_too(tmp_path: Path, settings: dict[str, Any]) -> None:
    given(tmp_path, settings)
    store = Store(claims=tmp_path)
    calibration = load_plan(plan(), store, SILENT).calibration
    assert calibration is not None
    wanted = torch.tensor([[2 + (row + at) % 60 for at in range(6)] for row in range(40)])
    assert calibration.inputs["input_ids"].tolist() == wanted.tolist()
    assert bool(calibration.inputs["attention_mask"].all())
    summary = flow.compress(plan(), store, SILENT)
    assert summary.candidate is not None
    request = EvaluationRequest.model_validate(
        {
            "task": "Embedding",
            "data": {"uri": "pvc://data/a.jsonl", "text": ["text"], "maxLength": 12},
            "settings": {},
            "seed": 0,
            "baseline": summary.baseline,
            "candidate": summary.candidate,
            "output": {"uri": "pvc://out/run"},
        }
    )
    entered = enter(open_artifact(summary.candidate, store, "spec.output.uri"), request, store)
    assert entered.samples.inputs["input_ids"].tolist() == wanted.tolist()


def test_a_length_above_the_datas_and_texts_as_they_are_change_nothing(tmp_path: Path) -> None:
    given(tmp_path, {"max_seq_length": 30, "do_lower_case": False})
    calibration = load_plan(plan(), Store(claims=tmp_path), SILENT).calibration
    assert calibration is not None
    assert calibration.inputs["input_ids"].shape == (40, 12)
    # Words in capitals are not in the vocabulary.
    assert calibration.inputs["input_ids"][1, :10].tolist() == [1] * 10


def test_the_directory_that_is_written_has_the_settings_and_early_names_are_known(tmp_path: Path) -> None:
    given(tmp_path, SETTINGS, "sentence_roberta_config.json")
    source = load(tmp_path, "Embedding")
    assert Sentences.of(source.files) == Sentences(most_tokens=6, lower_case=True)
    assert json.loads(source.directory[SENTENCE_FILE]) == SETTINGS


def test_the_settings_are_of_vectors_only(tmp_path: Path) -> None:
    target = save(tmp_path, made("Bert", "ForSequenceClassification", **SIZES))
    (target / SENTENCE_FILE).write_text(json.dumps(SETTINGS))
    assert SENTENCE_FILE not in load(tmp_path, "TextClassification").files


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"max_seq_length": 6, "query_length": 32},
            r"sets query_length: 32, which is not known here; expected max_seq",
        ),
        (NEW | {"unpad_inputs": True}, "sets unpad_inputs: true, which is not known"),
        (NEW | {"transformer_task": "fill-mask"}, 'sets transformer_task: "fill-mask"'),
        ({"max_seq_length": "long"}, "has the max_seq_length 'long', expected a number of tokens"),
        ({"max_seq_length": 0}, "has the max_seq_length 0, expected"),
        ({"max_seq_length": True}, "has the max_seq_length True, expected"),
        ({"do_lower_case": "yes"}, "has the do_lower_case 'yes', expected true or false"),
        ("[1]", "holds no map of settings"),
        ("{", "is not JSON"),
    ],
)
def test_settings_that_are_not_known_are_refused_before_any_work(tmp_path: Path, settings: Any, words: str) -> None:
    given(tmp_path, settings)
    with pytest.raises(UserError, match=rf"^spec\.model\.uri: sentence_bert_config\.json {words}"):
        load_plan(plan(calibration=None), Store(claims=tmp_path), SILENT)


def test_pairs_and_words_are_lowered_in_every_part() -> None:
    lowering = Sentences(lower_case=True)
    assert lowering.prepared(["A b", ("C", "D")]) == ["a b", ("c", "d")]
    assert lowering.prepared([["E", "f"]]) == [["e", "f"]]
