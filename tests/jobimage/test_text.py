"""Text goes the whole way: the tokenizer comes with the model and travels with the artifacts."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.jobimage.claims import accuracies
from tests.jobimage.modules import Bag
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from torch import nn

from plimsoll_api.data import DataSource
from plimsoll_api.plan import EvaluationRequest, Plan
from plimsoll_api.report import Report, Summary
from plimsoll_job import compress as flow
from plimsoll_job.errors import UserError
from plimsoll_job.evaluate.flow import measure
from plimsoll_job.load.data import read_samples
from plimsoll_job.load.store import Store
from plimsoll_job.load.text import tokenize
from plimsoll_job.progress import Reporter

SILENT = Reporter(emit=lambda _: None)
GOOD, BAD = ["fine", "lovely", "brisk", "clear"], ["poor", "dreary", "slow", "muddled"]
OTHER = ["film", "plot", "cast", "score", "was", "and", "the", "a"]
LENGTH = 12


def review(chance: random.Random) -> dict[str, Any]:
    label = chance.randint(0, 1)
    words = [*chance.choices((BAD, GOOD)[label], k=2), *chance.choices(OTHER, k=chance.randint(2, 14))]
    chance.shuffle(words)
    return {"review": " ".join(words), "mood": ("gloomy", "glad")[label], "long": len(words) > 9}


def trained_tokenizer(reviews: list[dict[str, Any]], template: bool = True) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(
        [one["review"] for one in reviews], trainers.WordPieceTrainer(vocab_size=64, special_tokens=special)
    )
    if template:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return tokenizer


@pytest.fixture(scope="module")
def reviews() -> list[dict[str, Any]]:
    chance = random.Random(0)  # noqa: S311
    return [review(chance) for _ in range(600)]


@pytest.fixture(scope="module")
def tokenizer(reviews: list[dict[str, Any]]) -> Tokenizer:
    return trained_tokenizer(reviews)


@pytest.fixture(scope="module")
def source(reviews: list[dict[str, Any]], tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Claims with a model of reviews that is nearly always right, its tokenizer beside it, and data as JSON lines."""
    claims = tmp_path_factory.mktemp("reviews")
    for name in ("models/bag", "data", "out"):
        (claims / name).mkdir(parents=True)
    content = tokenizer.to_str().encode()
    (claims / "models" / "bag" / "tokenizer.json").write_bytes(content)
    for name, part in (("train", reviews[:400]), ("test", reviews[400:])):
        (claims / "data" / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in part))
    arrays = tokenize([one["review"] for one in reviews[:400]], content, LENGTH)
    labels = torch.tensor([one["mood"] == "glad" for one in reviews[:400]]).long()
    torch.manual_seed(0)
    module = Bag()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.02)
    for _ in range(40):
        loss = nn.functional.cross_entropy(module(*map(torch.from_numpy, list(arrays.values())[:2])), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    save_file(module.state_dict(), claims / "models" / "bag" / "model.safetensors")
    return claims


def data(name: str, **changes: Any) -> dict[str, Any]:
    given = {"uri": f"pvc://data/{name}.jsonl", "text": ["review"], "maxLength": LENGTH, "labels": "mood"}
    return given | {"classes": ["gloomy", "glad"]} | changes


def compressed(claims: Path) -> Summary:
    plan = Plan.model_validate(
        {
            "image": "",
            "model": {"uri": "pvc://models/bag", "architecture": {"factory": "tests.jobimage.modules:Bag"}},
            "task": "TextClassification",
            "train": data("train"),
            "calibration": data("train", samples=64),
            "steps": [
                {"prune": {"criterion": "Activation", "amount": "20%"}},
                {"distill": {"epochs": 3, "learningRate": "0.01", "losses": [{"logits": {}}, {"labels": {}}]}},
                {"quantize": {"scheme": "Int8Static"}},
            ],
            "seed": 0,
            "output": {"uri": "pvc://out/bag"},
        }
    )
    return flow.compress(plan, Store(claims=claims), SILENT)


def measured(claims: Path, summary: Summary, **changes: Any) -> Report:
    request = EvaluationRequest.model_validate(
        {
            "task": "TextClassification",
            "data": data("test", slices=[{"column": "long"}], **changes),
            "settings": {"latency": {"batchSizes": [1], "rounds": 8, "processes": 2}},
            "seed": 0,
            "baseline": summary.baseline,
            "candidate": summary.candidate,
            "by_step": True,
            "output": {"uri": "pvc://out/bag"},
        }
    )
    return measure(request, Store(claims=claims), SILENT)


@pytest.fixture(scope="module")
def summary(source: Path) -> Summary:
    return compressed(source)


def test_a_model_of_text_goes_the_whole_way(source: Path, summary: Summary) -> None:
    report = measured(source, summary)
    baseline, candidate = accuracies(report)
    assert baseline >= 0.9
    assert candidate >= 0.85
    assert [(one.value, one.samples > 20) for one in report.slices] == [("False", True), ("True", True)]
    assert len(report.steps) == 3
    whole = (source / "models" / "bag" / "tokenizer.json").read_bytes()
    for ref in (summary.baseline, summary.candidate):
        assert ref is not None
        directory = source / ref.uri.removeprefix("pvc://")
        assert (directory / "tokenizer.json").read_bytes() == whole
        assert ref.size_bytes == len(whole) + (directory / "model.onnx").stat().st_size


def test_a_changed_tokenizer_is_never_used(source: Path, summary: Summary) -> None:
    assert summary.candidate is not None
    file = source / summary.candidate.uri.removeprefix("pvc://") / "tokenizer.json"
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"[UNK]", b"[UNX]"))
    try:
        with pytest.raises(UserError, match=r"tokenizer.json of .* differs from its manifest"):
            measured(source, summary)
    finally:
        file.write_bytes(whole)


def test_texts_may_be_of_another_length_than_those_that_it_was_compressed_with(source: Path, summary: Summary) -> None:
    report = measured(source, summary, maxLength=16)
    assert report.baseline is not None
    assert report.baseline.accuracy is not None
    assert report.baseline.accuracy >= 0.9


def test_a_model_without_a_tokenizer_takes_no_text(source: Path) -> None:
    with pytest.raises(UserError, match=r"f.text: the model has no tokenizer.json beside its weights"):
        read_samples(DataSource.model_validate(data("train")), Store(claims=source), "f", None)


def test_tokens_are_those_of_the_tokenizers_own_padding(reviews: list[dict[str, Any]], tokenizer: Tokenizer) -> None:
    texts = [one["review"] for one in reviews]
    content = tokenizer.to_str().encode()
    reference = Tokenizer.from_str(content.decode())
    for direction, pad in (("right", 0), ("left", 1)):
        reference.enable_padding(direction=direction, pad_id=pad, length=LENGTH)
        reference.enable_truncation(LENGTH)
        expected = reference.encode_batch(texts)
        found = tokenize(texts, reference.to_str().encode(), LENGTH)
        assert found["input_ids"].tolist() == [one.ids for one in expected]
        assert found["attention_mask"].tolist() == [one.attention_mask for one in expected]
        assert {array.dtype for array in found.values()} == {np.dtype(np.int64)}
    assert tokenize(texts, content, LENGTH)["input_ids"].tolist() != found["input_ids"].tolist()


def test_pairs_are_joined_by_the_tokenizers_template(tokenizer: Tokenizer) -> None:
    found = tokenize([("the plot", "was and")], tokenizer.to_str().encode(), 8)
    words = [tokenizer.id_to_token(number) for number in found["input_ids"][0]]
    assert words == ["[CLS]", "the", "plot", "[SEP]", "was", "and", "[SEP]", "[PAD]"]
    assert found["attention_mask"][0].tolist() == [1] * 7 + [0]


@pytest.mark.parametrize(
    ("texts", "content", "message"),
    [
        (["fine"], b"{}", "f: the model's tokenizer.json is no tokenizer"),
        (["fine"], b"\xff", "f: the model's tokenizer.json is no tokenizer"),
        ([("a", "b")], None, r"f: the text of sample 0 does not fit 2 tokens: \('a', 'b'\)"),
    ],
)
def test_what_cannot_be_tokenized_says_why(tokenizer: Tokenizer, texts: Any, content: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tokenize(texts, content or tokenizer.to_str().encode(), 2, "f")


def test_a_text_without_a_token_is_refused(reviews: list[dict[str, Any]]) -> None:
    bare = trained_tokenizer(reviews, template=False).to_str().encode()
    with pytest.raises(UserError, match=r"f: the text of sample 1 has no token: ' '"):
        tokenize(["fine", " "], bare, 4, "f")


def test_entries_that_are_no_text_are_refused(source: Path) -> None:
    given = DataSource.model_validate(data("train", text=["review", "long"]))
    with pytest.raises(UserError, match=r"f.text: 'long' holds .* in sample 0, expected text"):
        read_samples(given, Store(claims=source), "f", None, files={"tokenizer.json": b"{}"})
