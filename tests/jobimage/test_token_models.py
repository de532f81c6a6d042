"""Models that answer every token: loaded from a Hugging Face directory, cut, trained again, quantized and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tests.jobimage.claims import Claims, published
from tests.jobimage.texts import WORD_LEVEL, tagged
from torch import nn

from plimsoll_api.plan import EvaluationRequest, Plan
from plimsoll_api.report import Report, Summary
from plimsoll_job import compress as flow
from plimsoll_job.evaluate.flow import measure
from plimsoll_job.load.labels import IGNORED
from plimsoll_job.load.store import Store
from plimsoll_job.progress import Reporter
from plimsoll_job.techniques.distill.losses import (
    cross_entropy_of_tokens,
    softened_divergence,
    softened_divergence_of_tokens,
)

SILENT = Reporter(emit=lambda _: None)
LENGTH, TAGS = 12, 3
RECOVERY = {"epochs": 15, "batchSize": 32, "learningRate": "0.005", "losses": [{"logits": {}}, {"labels": {}}]}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Claims with a BERT that tags words, trained, its tokenizer beside it, and sentences with their tags."""
    claims = tmp_path_factory.mktemp("tags")
    for name in ("data", "out"):
        (claims / name).mkdir()
    for name, count in (("train", 300), ("test", 200)):
        lines = tagged(count, seed=len(name))
        (claims / "data" / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
        "max_position_embeddings": LENGTH, "num_labels": TAGS, "hidden_dropout_prob": 0,
        "attention_probs_dropout_prob": 0,
    }  # fmt: skip
    model = transformers.BertForTokenClassification(transformers.BertConfig(**sizes))
    _train(model, tagged(300, seed=5))
    model.save_pretrained(claims / "models" / "tagger")
    (claims / "models" / "tagger" / "tokenizer.json").write_text(WORD_LEVEL)
    return claims


def _train(model: Any, lines: list[dict[str, Any]]) -> None:
    ids = torch.zeros(len(lines), LENGTH, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    for row, line in enumerate(lines):
        words = [int(word.removeprefix("w")) for word in line["words"]][:LENGTH]
        ids[row, : len(words)] = torch.tensor(words)
        labels[row, : len(words)] = torch.tensor(line["tags"][: len(words)])
    mask = (labels != IGNORED).long()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for part in [torch.arange(at, len(lines), 6) for at in range(6)] * 20:
        loss = model(input_ids=ids[part], attention_mask=mask[part], labels=labels[part]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def data(name: str, **changes: Any) -> dict[str, Any]:
    return {"uri": f"pvc://data/{name}.jsonl", "text": ["words"], "maxLength": LENGTH, "labels": "tags"} | changes


def compressed(claims: Path, *steps: dict[str, Any], formats: tuple[str, ...] = ("Onnx",)) -> Summary:
    plan = Plan.model_validate(
        {
            "image": "",
            "model": {"uri": "pvc://models/tagger", "architecture": {"huggingface": {}}},
            "task": "TokenClassification",
            "train": data("train"),
            "calibration": data("train", samples=64),
            "steps": list(steps),
            "seed": 0,
            "output": {"uri": "pvc://out/tagger", "formats": formats},
        }
    )
    summary = flow.compress(plan, Store(claims=claims), SILENT)
    torch.set_num_threads(1)
    return summary


def measured(claims: Path, summary: Summary) -> Report:
    request = EvaluationRequest.model_validate(
        {
            "task": "TokenClassification",
            "data": data("test"),
            "settings": {"latency": {"batchSizes": [1], "rounds": 8, "processes": 2}},
            "seed": 0,
            "baseline": summary.baseline,
            "candidate": summary.candidate,
            "by_step": True,
            "output": {"uri": "pvc://out/tagger"},
        }
    )
    return measure(request, Store(claims=claims), SILENT)


def test_it_is_pruned_recovers_on_its_tokens_and_is_quantized(source: Path) -> None:
    summary = compressed(
        source,
        {"prune": {"criterion": "Magnitude", "amount": "40%"}},
        {"distill": RECOVERY},
        {"quantize": {"scheme": "Int8Static"}},
    )
    report = measured(source, summary)
    assert report.baseline is not None
    assert report.baseline.accuracy is not None
    assert report.baseline.accuracy > 0.9
    pruned, distilled, quantized = (step.accuracy for step in report.steps)
    assert pruned is not None
    assert distilled is not None
    assert quantized is not None
    assert distilled > pruned + 0.05
    assert distilled > report.baseline.accuracy - 0.05
    assert quantized > distilled - 0.05
    (output,) = published(Claims(source), summary.candidate)["outputs"]
    assert output["shape"] == [None, None, TAGS]


def test_its_huggingface_directory_answers_as_transformers_loads_it(source: Path) -> None:
    steps = {"prune": {"criterion": "Magnitude", "granularity": "Unstructured", "amount": "30%"}}
    summary = compressed(source, steps, formats=("Onnx", "HuggingFace"))
    manifest = published(Claims(source), summary.candidate)
    assert any(file["path"].startswith("huggingface/") for file in manifest["files"])
    assert summary.candidate is not None
    directory = source / summary.candidate.uri.removeprefix("pvc://") / "huggingface"
    model = transformers.AutoModelForTokenClassification.from_pretrained(directory)
    zeros = sum(int((one == 0).sum()) for one in model.parameters())
    assert zeros > 0.25 * sum(one.numel() for one in model.parameters())


# --- losses of tokens


def test_padding_has_no_part_in_the_loss_and_each_sample_weighs_the_same() -> None:
    torch.manual_seed(0)
    given, wanted = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    mask = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]])
    loss = softened_divergence_of_tokens(given, wanted, mask, 2.0)
    alone = [softened_divergence(given[row, :count], wanted[row, :count], 2.0) for row, count in enumerate((2, 5))]
    assert torch.allclose(loss, torch.stack(alone).mean())
    given[0, 2:] = 99
    assert torch.equal(softened_divergence_of_tokens(given, wanted, mask, 2.0), loss)


def test_labels_that_are_passed_over_have_no_part_in_the_loss() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 3)
    labels = torch.tensor([[0, IGNORED, 2, IGNORED], [1, 1, 1, 1], [IGNORED] * 4])
    first = nn.functional.cross_entropy(logits[0, [0, 2]], torch.tensor([0, 2]))
    second = nn.functional.cross_entropy(logits[1], labels[1])
    assert torch.allclose(cross_entropy_of_tokens(logits, labels), (first + second) / 3)
    assert np.isfinite(cross_entropy_of_tokens(logits[2:], labels[2:]).item())
