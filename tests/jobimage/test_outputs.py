"""Every output answers, in a process that knows nothing of the module, as the model did; or it is not published."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers
from onnx import numpy_helper
from safetensors import safe_open
from tests.jobimage.claims import Claims, published
from tests.jobimage.huggingface import SIZES, TEXT, TEXT_MODELS, WORDS, load, made, save
from torch import nn

from plimsoll_api.spec import OutputFormat
from plimsoll_job.compress import compress
from plimsoll_job.errors import TransientError, UserError
from plimsoll_job.export import reload
from plimsoll_job.export.alike import counting, difference, scale_of
from plimsoll_job.export.outputs import hugging_face, torch_export, write_outputs
from plimsoll_job.export.reload import check_reload, expected_answers
from plimsoll_job.load.examples import batches_of, example_of
from plimsoll_job.load.inputs import single
from plimsoll_job.load.model import SourceModel
from plimsoll_job.load.store import Store
from plimsoll_job.progress import Reporter
from plimsoll_job.techniques.shape import Candidate, Cut, Split
from plimsoll_job.zoo import wine_mlp

WINE = single((13,))
TASK = "TabularClassification"
ONNX, TORCH, DIRECTORY = OutputFormat.ONNX, OutputFormat.TORCH_EXPORT, OutputFormat.HUGGING_FACE


def wine() -> SourceModel:
    torch.manual_seed(0)
    return SourceModel(wine_mlp, "tests", "sha256:" + "0" * 64)


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def answer_of(module: nn.Module) -> Any:
    def answer(inputs: Any) -> Any:
        with torch.no_grad():
            return module(*(torch.from_numpy(array) for array in inputs.values())).numpy()

    return answer


@pytest.fixture
def written(tmp_path: Path) -> Path:
    source = wine()
    write_outputs(Candidate(source.take()), source, WINE, TASK, formats=[ONNX], directory=tmp_path)
    return tmp_path


BATCHES = batches_of(WINE)


def expected() -> Any:
    return expected_answers(answer_of(wine().take()), BATCHES)


def test_a_graph_with_one_other_weight_is_not_published(written: Path) -> None:
    model = onnx.load(str(written / "model.onnx"))
    last = next(node for node in reversed(model.graph.node) if node.op_type == "Gemm")
    bias = next(constant for constant in model.graph.initializer if constant.name == last.input[2])
    changed = numpy_helper.to_array(bias).copy()
    changed[2] += 0.01
    bias.CopyFrom(numpy_helper.from_array(changed, bias.name))
    (written / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(
        UserError, match=r"the Onnx output, .* at batch 1: the largest difference is 0\.01, at output 2 of sample 0: "
    ):
        check_reload(written, ONNX, TASK, BATCHES, expected())


def test_an_output_that_cannot_be_loaded_is_not_published(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(UserError, match=r"the Onnx output cannot be loaded in a fresh process: .*"):
        check_reload(tmp_path, ONNX, TASK, BATCHES, expected())


def test_a_process_that_is_killed_says_nothing_of_the_output(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = subprocess.CompletedProcess([], -9, "", "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: killed)
    with pytest.raises(TransientError, match="ended by signal 9"):
        check_reload(written, ONNX, TASK, BATCHES, expected())


def test_an_output_is_reloaded_however_long_it_takes(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half an hour was all that it had: a large output was tried again, and again, to the same end."""
    monkeypatch.setattr(reload, "TIMEOUT_SECONDS", 0.01, raising=False)
    check_reload(written, ONNX, TASK, BATCHES, expected())


def test_what_the_process_prints_is_no_answer(tmp_path: Path, written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("import atexit\natexit.register(print, 'a library parts')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    peaks: list[int] = []
    monkeypatch.setattr(reload, "count_beside", peaks.append)
    check_reload(written, ONNX, TASK, BATCHES, expected())
    # The memory of an interpreter with ONNX Runtime and a small graph.
    (peak,) = peaks
    assert 20 << 20 < peak < 500 << 20


def test_differences_are_told_with_their_place() -> None:
    right = np.array([[1.0, 2.0], [3.0, 4.0]])
    scale = scale_of([right])
    assert difference(right, right + 3e-4, scale) is None
    assert difference(right, np.array([[1.0, 2.0], [3.1, 4.0]]), scale) == (
        "the largest difference is 0.1, at output 0 of sample 1: 3.1, expected 3"
    )
    tags = np.zeros((2, 3, 4))
    tags[1, 2, 3] = 1
    assert difference(np.zeros((2, 3, 4)), tags, scale_of([np.zeros((2, 3, 4))])) == (
        "the largest difference is 1, at output 2, 3 of sample 1: 1, expected 0"
    )
    assert difference(right, right[:1], scale) == "the output has the shape [1, 2], expected [2, 2]"


def test_answers_that_are_not_finite_are_alike_where_both_are() -> None:
    right = np.array([[1.0, 2.0], [3.0, 4.0]])
    unknown, endless = right.copy(), right.copy()
    unknown[1], endless[0, 1] = np.nan, np.inf
    for answers in (unknown, endless, np.full((2, 2), np.nan)):
        assert difference(answers, answers.copy(), scale_of([answers])) is None
    assert difference(right, unknown, scale_of([right])) == "the output holds NaN or infinite numbers"
    assert difference(unknown, right, scale_of([unknown])) == "the model's own answer holds NaN or infinite numbers"
    assert difference(endless, -endless, scale_of([endless])) is not None
    assert difference(unknown, unknown + 0.1, scale_of([unknown])) is not None


def test_a_difference_is_a_share_of_what_most_samples_answer_however_small_answers_are() -> None:
    right = np.array([[1e-3, -4e-3]])
    assert difference(right, right + 3e-6, scale_of([right])) is None
    assert difference(right, right + 5e-6, scale_of([right])) is not None
    # A sample whose answer is next to zero by chance, beside others whose rounding it shares.
    chance = [np.array([[2e-6]]), np.array([[0.5], [-3.0]])]
    scale = scale_of(chance)
    assert difference(chance[0], chance[0] + 1e-7, scale) is None
    assert difference(chance[0], chance[0] + 4e-3, scale) is not None
    # One that is far from all others hides nothing of them.
    far = np.array([[1e4]] + [[1.0]] * 9)
    assert difference(far, far + 2e-3, scale_of([far])) is not None
    assert difference(far, far * (1 + 5e-4), scale_of([far])) is None
    nothing = np.zeros((1, 2))
    assert difference(nothing, nothing, scale_of([nothing])) is None
    assert difference(nothing, nothing + 1e-9, scale_of([nothing])) is not None


def test_answers_to_padding_count_for_nothing() -> None:
    batch = {"input_ids": np.ones((2, 3), np.int64), "attention_mask": np.array([[1, 1, 0], [1, 0, 0]])}
    answers = np.arange(12.0).reshape(2, 3, 2)
    assert counting(answers, batch).tolist() == [[[0, 1], [2, 3], [0, 0]], [[6, 7], [0, 0], [0, 0]]]
    assert counting(answers[:, 0], batch) is not None
    assert np.array_equal(counting(answers[:, 0], batch), answers[:, 0])


def test_small_answers_that_are_wrong_by_a_tenth_are_not_published(tmp_path: Path) -> None:
    source = wine()
    module = source.take()
    with torch.no_grad():
        list(module.parameters())[-2].mul_(1e-4)
        list(module.parameters())[-1].mul_(1e-4)
    own = expected_answers(answer_of(module), BATCHES)
    assert scale_of(own).usual < 1e-3
    write_outputs(Candidate(module), source, WINE, TASK, formats=[ONNX], directory=tmp_path)
    with pytest.raises(UserError, match="the Onnx output, loaded in a fresh process, answers otherwise than the model"):
        check_reload(tmp_path, ONNX, TASK, BATCHES, [answer * 1.1 for answer in own])


def test_onnx_is_loaded_without_torch() -> None:
    imports = "import sys, plimsoll_job.export.fresh, plimsoll_job.sessions"
    code = f"{imports}; print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "False"


@pytest.mark.slow
def test_a_directory_is_loaded_by_transformers_itself(tmp_path: Path) -> None:
    save(tmp_path, made("Bert", "ForSequenceClassification", **SIZES).half())
    source = load(tmp_path, "TextClassification")
    module = source.take()
    with torch.no_grad():
        module.get_parameter("model.classifier.weight").mul_(0.5)
    out = tmp_path / "out"
    out.mkdir()
    write_outputs(Candidate(module), source, TEXT, "TextClassification", formats=[ONNX, DIRECTORY], directory=out)
    again: Any = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "out" / "huggingface"
    ).eval()
    ids, mask = example_of(TEXT, 3)
    with torch.no_grad():
        assert torch.allclose(again(input_ids=ids, attention_mask=mask).logits, module(ids, mask), atol=1e-6)


def test_what_layers_share_is_written_once_and_tied_again(tmp_path: Path) -> None:
    """T5's encoder has its embedding under two names, of which save_pretrained writes one."""
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    given = save(tmp_path, made("T5", "ForTokenClassification", vocab_size=WORDS, num_labels=3, **sizes))
    source = load(tmp_path, "TokenClassification")
    hugging_face(source.module, source, tmp_path / "huggingface")
    with (
        safe_open(given / "model.safetensors", "pt") as before,
        safe_open(tmp_path / "huggingface" / "model.safetensors", "pt") as after,
    ):
        assert sorted(after.keys()) == sorted(before.keys())
    batches = batches_of(TEXT)
    check_reload(
        tmp_path, DIRECTORY, "TokenClassification", batches, expected_answers(answer_of(source.module), batches)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Bert", "GPT2"])
def test_an_exported_program_of_text_is_loaded_without_its_class(tmp_path: Path, name: str) -> None:
    save(tmp_path, made(name, "ForSequenceClassification", **TEXT_MODELS[name]))
    source = load(tmp_path, "TextClassification")
    out = tmp_path / "out"
    out.mkdir()
    write_outputs(Candidate(source.take()), source, TEXT, "TextClassification", formats=[ONNX, TORCH], directory=out)
    assert names_in(out) == {"model.onnx", "model.pt2"}


@pytest.mark.slow
def test_a_job_writes_every_format_and_marks_what_is_code(claims: Claims) -> None:
    plan = claims.plan(
        [{"prune": {"criterion": "Magnitude", "amount": "30%"}}],
        output={"uri": "pvc://out/wine", "formats": ["Onnx", "TorchExport"]},
    )
    summary = compress(plan, Store(claims=claims.directory), Reporter(emit=lambda _: None))
    files = {file["path"]: file for file in published(claims, summary.candidate)["files"]}
    assert {path: (file["serving"], file["code"]) for path, file in files.items()} == {
        "changes.json": (False, False),
        "model.onnx": (True, False),
        "model.pt2": (False, True),
    }
    assert summary.candidate is not None
    assert summary.candidate.size_bytes == files["model.onnx"]["sizeBytes"]
    assert [file["path"] for file in published(claims, summary.baseline)["files"]] == ["model.onnx"]
    assert json.dumps(files) == json.dumps({path: files[path] for path in sorted(files)})


def test_what_was_done_to_the_structure_lies_beside_the_model_whole(tmp_path: Path, written: Path) -> None:
    source = wine()
    changes = (Cut("0", tuple(range(3_000))), Split("2", (2,)))
    assert names_in(written) == {"model.onnx"}
    write_outputs(Candidate(source.take(), changes), source, WINE, TASK, formats=[ONNX], directory=tmp_path)
    assert json.loads((tmp_path / "changes.json").read_bytes()) == [
        {"cut": {"channels": list(range(3_000)), "layer": "0", "turn": 0}},
        {"split": {"layer": "2", "ranks": [2]}},
    ]


@pytest.mark.slow
def test_the_same_module_gives_the_same_program(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        torch_export(wine().take(), WINE, tmp_path / name / "model.pt2")
    one, other = ((tmp_path / name / "model.pt2").read_bytes() for name in ("one", "other"))
    assert one == other
