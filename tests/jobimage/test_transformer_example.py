"""The transformer example writes what its job names, and what it writes is what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from plimsoll_api.spec import CompressionJobSpec
from plimsoll_job.examples import transformer
from plimsoll_job.load.data import read_samples
from plimsoll_job.load.labels import class_numbers
from plimsoll_job.load.model import load_model
from plimsoll_job.load.store import Store

JOB = Path(__file__).parents[2] / "examples" / "transformer" / "job.yaml"


def test_the_job_reads_what_the_example_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformer, "TRAIN_SAMPLES", 300)
    monkeypatch.setattr(transformer, "EPOCHS", 1)
    transformer.prepare(tmp_path / "models", tmp_path / "data")
    spec = CompressionJobSpec.model_validate(yaml.safe_load(JOB.read_text())["spec"])
    store = Store(claims=tmp_path)
    model = load_model(spec.model, store, spec.task)
    assert model.architecture == "huggingface BertForSequenceClassification"
    columns = [part.column for part in spec.data.evaluation.slices]
    samples = read_samples(spec.data.evaluation, store, "f", class_numbers, columns=columns, files=model.files)
    assert len(samples) == transformer.TEST_SAMPLES
    assert samples.labels is not None
    assert 0.45 < samples.labels.mean() < 0.55
    assert set(samples.columns["clauses"]) == {"1", "2", "3", "4"}
    # Every word is known, and no review is cut.
    assert 1 not in samples.inputs["input_ids"]
    assert samples.inputs["attention_mask"][:, -1].sum() == 0


def test_the_last_clause_decides_and_not_turns_it_around() -> None:
    for one in transformer.reviews(500, seed=0):
        last = one["review"].split(" but ")[-1].split()
        good = last[-1] in transformer.GOOD
        assert one["mood"] == transformer.MOODS[good != ("not" in last)]
    assert transformer.reviews(20, seed=1) == transformer.reviews(20, seed=1)
