"""An export answers as its module on the job's own samples, and where a model decides by their values it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from safetensors.torch import save_file
from tests.jobimage.claims import Claims, compressed, published
from torch import nn

from plimsoll_api.report import Report, Summary
from plimsoll_api.spec import OutputFormat, Task
from plimsoll_job.compress import UNPROVED, compress
from plimsoll_job.errors import UserError
from plimsoll_job.evaluate.flow import evaluate
from plimsoll_job.export.onnx_export import Exported, export_onnx
from plimsoll_job.export.outputs import torch_export, write_outputs
from plimsoll_job.load.data import Samples
from plimsoll_job.load.examples import batches_of, with_samples
from plimsoll_job.load.inputs import BATCH, Input, Signature, single
from plimsoll_job.load.model import SourceModel
from plimsoll_job.load.signature import signature_of
from plimsoll_job.load.store import Store
from plimsoll_job.progress import Reporter
from plimsoll_job.techniques.shape import Candidate

TASK = Task.TABULAR_CLASSIFICATION


class Deciding(nn.Module):
    """Four numbers, three classes; what it does to a batch before its layer is a subclass's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 3)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.layer(self.prepared(rows))
        return answers

    def prepared(self, rows: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class AutoScale(Deciding):
    """Takes bytes or shares, and looks which they are."""

    def prepared(self, rows: torch.Tensor) -> torch.Tensor:
        if rows.max() > 1:
            rows = rows / 255
        return rows


class Normalised(Deciding):
    """Divides by a number that Python computes of the batch."""

    def prepared(self, rows: torch.Tensor) -> torch.Tensor:
        return rows / rows.abs().max().item()


class Coded(Deciding):
    """Treats whole numbers otherwise than others."""

    def prepared(self, rows: torch.Tensor) -> torch.Tensor:
        return rows * 2 if bool((rows == rows.round()).all()) else rows


class Far(Deciding):
    """Takes bytes or shares too; its answers are small beside a constant, as years and pressures are."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        rows = rows / 255 if rows.max() > 1 else rows
        answers: torch.Tensor = self.layer(rows) + 2_000
        return answers


class Crowded(Deciding):
    """Treats large batches otherwise."""

    def prepared(self, rows: torch.Tensor) -> torch.Tensor:
        return rows * 2 if len(rows) > 8 else rows


class Constant(Deciding):
    """Reads what no input has a part in."""

    def prepared(self, rows: torch.Tensor) -> torch.Tensor:
        return rows * 2 if float(torch.zeros_like(rows).sum()) == 0 and self.layer.bias.sum().item() else rows


class Sparse(nn.Module):
    """A mixture that asks those experts only which some sample of the batch is sent to."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.router, self.experts = nn.Linear(4, 5), nn.ModuleList(nn.Linear(4, 3) for _ in range(5))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        chosen = self.router(rows).argmax(1)
        answers = torch.zeros_like(rows[:, :3])
        for number, expert in enumerate(self.experts):
            mask = chosen == number
            if mask.any():
                answers = torch.where(mask[:, None], expert(rows), answers)
        return answers


def shares(count: int = 100) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).uniform(0.1, 1, (count, 4)).astype(np.float32)


def loaded(module: nn.Module, rows: np.ndarray[Any, Any] | None) -> Signature:
    data = None if rows is None else Samples({"inputs": rows}, None, "")
    if data is None:
        module.input_shape = (4,)  # type: ignore[assignment]
    return signature_of(module.eval(), {"spec.data.calibration.inputs": data}, TASK)


def exported(module: nn.Module, rows: np.ndarray[Any, Any] | None, path: Path) -> Exported:
    return export_onnx(module, loaded(module, rows), path / "model.onnx")


def test_what_all_samples_decide_alike_is_kept_and_told(tmp_path: Path) -> None:
    module = AutoScale()
    (note,) = exported(module, shares(), tmp_path).notes
    assert "decides by values of its inputs" in note
    assert "test_decisions.py:" in note
    assert "in AutoScale.prepared, `if rows.max() > 1:` (False when traced)" in note
    rows = shares(40)
    (given,) = ort.InferenceSession(tmp_path / "model.onnx").run(None, {"inputs": rows})
    assert np.allclose(given, module(torch.from_numpy(rows)).detach().numpy(), atol=1e-5)


def given(rows: np.ndarray[Any, Any]) -> Signature:
    return with_samples(single((4,)), Samples({"inputs": rows}, None, ""))


@pytest.mark.parametrize("bytes_among", [1, 50])
def test_a_branch_that_some_samples_take_is_refused_by_its_line(tmp_path: Path, bytes_among: int) -> None:
    rows = shares(5_000)
    rows[:bytes_among] *= 255
    line = r"in AutoScale\.prepared, `if rows\.max\(\) > 1:` \("
    with pytest.raises(
        UserError, match=rf"answers otherwise than the module .* {line}False when traced, else True too"
    ):
        export_onnx(AutoScale().eval(), given(rows), tmp_path / "model.onnx")
    with pytest.raises(
        UserError, match=rf"answers depend on the batch: .*; it decides by values of its inputs: .*{line}"
    ):
        loaded(AutoScale(), rows)


@pytest.mark.parametrize(("module", "line"), [(Normalised, r"\.item\(\)`"), (Coded, r"if bool\(.* else rows` \(")])
def test_numbers_that_python_computes_of_values_are_told_by_their_line(
    tmp_path: Path, module: type[Deciding], line: str
) -> None:
    rows = np.concatenate([shares(), shares().round(0)])
    with pytest.raises(UserError, match=rf"of which an export keeps .* in {module.__name__}\.prepared, `.*{line}"):
        export_onnx(module().eval(), given(rows), tmp_path / "model.onnx")


def test_a_constant_hides_no_branch(tmp_path: Path) -> None:
    """All was alike to a thousandth of 2,000, and the note said so, where the branch of half the samples was gone."""
    rows = np.random.default_rng(0).uniform(size=(64, 4)).astype(np.float32)
    rows[::2] *= 3

    with pytest.raises(UserError, match=r"answers otherwise than the module .*test_decisions.py:\d+, in Far.forward"):
        export_onnx(Far().eval(), given(rows), tmp_path / "model.onnx")


def test_a_constant_is_no_difference_where_both_branches_answer_alike(tmp_path: Path) -> None:
    class Clipped(Deciding):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            rows = rows.clamp(max=10) if rows.max() > 1 else rows
            answers: torch.Tensor = self.layer(rows) + 2_000
            return answers

    rows = np.random.default_rng(0).uniform(size=(64, 4)).astype(np.float32)
    rows[::2] *= 3

    exported = export_onnx(Clipped().eval(), given(rows), tmp_path / "model.onnx")

    assert "decides by values" in exported.notes[0]


def test_a_model_that_treats_large_batches_otherwise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"answers otherwise than the module at batch 45 of samples \[4\]"):
        exported(Crowded(), shares(), tmp_path)


def test_what_no_input_has_a_part_in_is_no_decision(tmp_path: Path) -> None:
    assert exported(Constant(), shares(), tmp_path).notes == ()


@pytest.mark.parametrize("rows", [shares(), np.random.default_rng(1).normal(size=(400, 4)).astype(np.float32), None])
def test_a_sparse_mixture_is_exported_with_all_its_experts(tmp_path: Path, rows: np.ndarray[Any, Any] | None) -> None:
    module = Sparse()
    if rows is not None:
        # Two samples alone do not meet every expert.
        with torch.no_grad():
            assert len(module(torch.from_numpy(rows[:BATCH]))) == BATCH
    (note,) = exported(module, rows, tmp_path).notes
    assert "in Sparse.forward, `if mask.any():` (" in note
    if rows is not None:
        session = ort.InferenceSession(tmp_path / "model.onnx")
        for batch in (rows[:1], rows[-1:], rows):
            (given,) = session.run(None, {"inputs": batch})
            assert np.allclose(given, module(torch.from_numpy(batch)).detach().numpy(), atol=1e-5)


class Counted(Sparse):
    """Decides by how many samples are sent to an expert."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        chosen = self.router(rows).argmax(1)
        answers = torch.zeros(len(rows), 3)
        for number, expert in enumerate(self.experts):
            (sent,) = torch.where(chosen == number)
            if len(sent):
                answers = answers.index_add(0, sent, expert(rows[sent]))
        return answers


def test_a_mixture_that_counts_is_refused_by_its_lines_and_told_what_to_do(tmp_path: Path) -> None:
    lines = r"in Counted\.forward, `answers = torch\.zeros\(len.*in Counted\.forward, `if len\(sent\):`"
    with pytest.raises(UserError, match=rf"{lines}\. Take sizes from its shape, not by len, .* ask all experts"):
        exported(Counted(), shares(), tmp_path)


def test_torch_export_names_the_branch_that_it_cannot_take(tmp_path: Path) -> None:
    module = AutoScale()
    with pytest.raises(UserError, match=r"torch\.export cannot take this model: .* in AutoScale\.prepared, `if rows"):
        torch_export(module, loaded(module, shares()), tmp_path / "model.pt2")


@pytest.mark.slow
def test_every_format_is_compared_on_the_samples(tmp_path: Path) -> None:
    module, formats = Sparse(), [OutputFormat.ONNX, OutputFormat.TORCH_EXPORT]
    source = SourceModel(Sparse, "tests", "sha256:" + "0" * 64)
    with pytest.raises(UserError, match=r"`if mask\.any\(\):`"):
        write_outputs(
            Candidate(module),
            source,
            loaded(module, shares()),
            TASK,
            formats=formats,
            directory=tmp_path,
        )


class Text(nn.Module):
    """Two classes of texts; `longest` tokens are what it was made for, others it treats otherwise."""

    def __init__(self, *, longest: int = 0, padded: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.head = nn.Embedding(90, 8), nn.Linear(8, 2)
        self.longest, self.padded = longest, padded

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        weight = attention_mask.unsqueeze(-1).float()
        if self.longest:
            weight = weight * torch.ones(self.longest)[: int(input_ids.shape[1])].unsqueeze(-1)
        if self.padded and not attention_mask.all():
            weight = weight * 0.5
        answers: torch.Tensor = self.head((self.words(input_ids) * weight).sum(1))
        return answers


def texts(longest: int = 9) -> Signature:
    chance = np.random.default_rng(0)
    lengths = chance.integers(3, longest + 1, 80)
    mask = (np.arange(12) < lengths[:, None]).astype(np.int64)
    ids = chance.integers(1, 90, (80, 12)) * mask
    inputs = (
        Input("input_ids", (12,), "int64", 90, any_length=True),
        Input("attention_mask", (12,), "int64", 2, any_length=True),
    )
    return with_samples(inputs, Samples({"input_ids": ids, "attention_mask": mask}, None, ""))


def test_a_job_tells_what_its_model_decides_and_on_what_it_was_compared(claims: Claims) -> None:
    save_file(AutoScale().state_dict(), claims.weights)
    np.savez(claims.directory / "data" / "shares.npz", inputs=shares(100), labels=np.arange(100) % 3)
    summary = compressed(
        claims,
        [{"prune": {"criterion": "Magnitude", "granularity": "Unstructured", "amount": "50%"}}],
        model={"uri": "pvc://models/wine", "architecture": {"factory": "tests.jobimage.test_decisions:AutoScale"}},
        train=None,
        calibration={"uri": "pvc://data/shares.npz"},
    )
    for ref in (summary.baseline, summary.candidate):
        lineage = published(claims, ref)["lineage"]
        assert lineage["compared"] == 100
        (note,) = lineage["notes"]
        assert "`if rows.max() > 1:`" in note
    report = measured(claims, summary, uri="pvc://data/shares.npz", inputs=["inputs"])
    assert [told for told in report.notes if "rows.max()" in told] == [note]


def test_a_job_without_samples_is_told_that_its_baseline_stands_unproved(claims: Claims) -> None:
    told: list[str] = []
    prune = {"prune": {"criterion": "Magnitude", "amount": "30%"}}
    plan = claims.plan([prune], train=None, calibration=None)
    summary = compress(
        plan, Store(claims=claims.directory), Reporter(emit=lambda progress: told.append(progress.message))
    )
    assert "no samples: outputs are compared with the model on random numbers only" in told
    report = measured(claims, summary)
    assert [note for note in report.notes if "stands unproved" in note] == [UNPROVED]
    assert published(claims, summary.baseline)["lineage"]["compared"] == 0


def measured(claims: Claims, summary: Summary, **data: Any) -> Report:
    assert summary.baseline
    assert summary.candidate
    request = claims.request(summary.baseline, summary.candidate, **({"data": data} if data else {}))
    _, content = evaluate(request, Store(claims=claims.directory), Reporter(emit=lambda _: None))
    return Report.model_validate_json(content)


def test_texts_are_compared_at_their_own_lengths() -> None:
    batches = batches_of(texts())
    alone = [batch for batch in batches if len(batch["input_ids"]) == 1]
    assert {batch["input_ids"].shape[1] for batch in alone} >= {3, 4, 5, 6, 7, 8, 9}
    assert all(batch["attention_mask"].all() for batch in alone)
    together = {batch["input_ids"].shape for batch in batches if len(batch["input_ids"]) > 1}
    assert {(5, 12), (5, 6)} < together
    assert all(batch["input_ids"].shape[1] <= 12 and batch["attention_mask"].any(axis=1).all() for batch in batches)


def test_texts_padded_on_the_left_keep_their_ends() -> None:
    mask = (np.arange(12) >= 12 - np.arange(2, 12)[:, None]).astype(np.int64)
    ids = np.arange(120).reshape(10, 12) * mask
    inputs = (Input("input_ids", (12,), "int64", 120, any_length=True), Input("attention_mask", (12,), "int64", 2))
    batches = batches_of(with_samples(inputs, Samples({"input_ids": ids, "attention_mask": mask}, None, "")))
    assert all(batch["attention_mask"][:, -1].all() for batch in batches)


def test_a_branch_on_masks_is_refused_by_its_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"in Text\.forward, `if self\.padded and not attention_mask\.all\(\):` \("):
        export_onnx(Text(padded=True).eval(), texts(longest=12), tmp_path / "model.onnx")


def test_a_branch_that_no_sample_takes_at_one_length_fixes_it(tmp_path: Path) -> None:
    length, decision = export_onnx(Text(padded=True).eval(), texts(), tmp_path / "model.onnx").notes
    assert length.startswith("Texts must have 12 tokens: ")
    assert "attention_mask.all():` (False when traced)" in decision


def test_texts_of_any_length_need_no_note(tmp_path: Path) -> None:
    assert export_onnx(Text().eval(), texts(), tmp_path / "model.onnx").notes == ()


def test_a_fixed_length_is_told_with_the_reason(tmp_path: Path) -> None:
    found = export_onnx(Text(longest=12).eval(), texts(), tmp_path / "model.onnx")
    (note,) = found.notes
    assert note.startswith("Texts must have 12 tokens: with others, the ONNX export answers otherwise than the module")
    assert not any(one.any_length for one in found.signature)
    assert {one.shape[1] for one in ort.InferenceSession(tmp_path / "model.onnx").get_inputs()} == {12}


def test_samples_that_the_model_refuses_are_told_as_the_jobs(tmp_path: Path) -> None:
    class Strict(Deciding):
        def prepared(self, rows: torch.Tensor) -> torch.Tensor:
            if rows.min() < 0:
                raise ValueError("expected no negative numbers")
            return rows

    rows = shares(3_000)
    rows[1_234, 2] = -1
    with pytest.raises(UserError, match=r"the model refuses samples of the job: .*expected no negative numbers"):
        export_onnx(
            Strict().eval(), with_samples(single((4,)), Samples({"inputs": rows}, None, "")), tmp_path / "m.onnx"
        )
