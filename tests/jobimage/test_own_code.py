"""Code that comes with a model runs where the spec allows it, from the directory alone, and nowhere else."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.jobimage.claims import Claims
from torch import nn

from plimsoll_api.spec import ModelSource
from plimsoll_job import compress as flow
from plimsoll_job.errors import UserError
from plimsoll_job.evaluate.flow import measure
from plimsoll_job.export.outputs import torch_export
from plimsoll_job.load.inputs import single
from plimsoll_job.load.model import SourceModel, load_model
from plimsoll_job.load.store import Store
from plimsoll_job.progress import Reporter

CONFIGURATION = """
from transformers import PretrainedConfig


class MineConfig(PretrainedConfig):
    model_type = "mine"

    def __init__(self, width=24, **rest):
        self.width = width
        super().__init__(**rest)
"""
MODELING = """
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from .configuration_mine import MineConfig

Path({marker!r}).write_text("ran")


class MineForImageClassification(PreTrainedModel):
    config_class = MineConfig

    def __init__(self, config):
        super().__init__(config)
        self.body = nn.Linear(13, config.width)
        self.head = nn.Linear(config.width, 3)
        self.post_init()

    def forward(self, pixel_values):
        return ImageClassifierOutput(logits=self.head(torch.relu(self.body(pixel_values))))
"""
AUTO_MAP = {
    "AutoConfig": "configuration_mine.MineConfig",
    "AutoModelForImageClassification": "modeling_mine.MineForImageClassification",
}
MODEL = {"uri": "pvc://models/mine", "architecture": {"huggingface": {}}}


@pytest.fixture
def given(claims: Claims) -> Claims:
    """The claims of the wines, and a directory whose model class lies beside its weights."""
    torch.manual_seed(0)
    folder = claims.directory / "models" / "mine"
    folder.mkdir()
    weights = nn.Sequential(nn.Linear(13, 24), nn.Linear(24, 3)).state_dict()
    named = {name.replace("0.", "body.").replace("1.", "head."): value for name, value in weights.items()}
    save_file(named, folder / "model.safetensors")
    write_config(claims)
    (folder / "configuration_mine.py").write_text(CONFIGURATION)
    (folder / "modeling_mine.py").write_text(MODELING.format(marker=str(marker(claims))))
    return claims


def marker(claims: Claims) -> Path:
    return claims.directory / "out" / "ran"


def write_config(claims: Claims, **changes: Any) -> None:
    config = {
        "model_type": "mine", "width": 24, "architectures": ["MineForImageClassification"], "auto_map": AUTO_MAP,
        "num_labels": 3,
    }  # fmt: skip
    (claims.directory / "models" / "mine" / "config.json").write_text(json.dumps(config | changes))


def load(claims: Claims, **options: Any) -> SourceModel:
    return load_model(
        ModelSource.model_validate(MODEL), Store(claims=claims.directory), "ImageClassification", **options
    )


def test_it_is_refused_and_not_run_where_the_spec_says_nothing(given: Claims) -> None:
    with pytest.raises(UserError, match=r"is not run unless spec\.allowCodeExecution is true") as caught:
        load(given)
    assert caught.value.reason == "CodeRefused"
    plan = given.plan([{"quantize": {"scheme": "Float16"}}], model=MODEL, task="ImageClassification")
    with pytest.raises(UserError, match=r"spec\.allowCodeExecution"):
        flow.compress(plan, Store(claims=given.directory), Reporter(emit=lambda _: None))
    assert not marker(given).exists()


def test_it_goes_the_whole_way_where_it_is_allowed_and_the_evaluation_never_runs_it(given: Claims) -> None:
    plan = given.plan(
        [{"prune": {"criterion": "Magnitude", "amount": "25%"}}, {"quantize": {"scheme": "Float16"}}],
        model=MODEL, task="ImageClassification", allow_code_execution=True,
    )  # fmt: skip
    summary = flow.compress(plan, Store(claims=given.directory), Reporter(emit=lambda _: None))
    torch.set_num_threads(1)
    assert marker(given).exists()
    marker(given).unlink()
    assert summary.baseline is not None
    assert summary.candidate is not None
    assert not list((given.directory / "out").rglob("*.py"))
    for file in (given.directory / "models" / "mine").iterdir():
        file.unlink()
    request = given.request(summary.baseline, summary.candidate, task="ImageClassification")
    report = measure(request, Store(claims=given.directory), Reporter(emit=lambda _: None))
    assert report.data.samples > 80
    assert not marker(given).exists()


def test_the_digest_covers_the_code(given: Claims) -> None:
    before = load(given, allow_code=True)
    assert before.has_code
    file = given.directory / "models" / "mine" / "modeling_mine.py"
    file.write_text(file.read_text() + "# another\n")
    assert load(given, allow_code=True).digest != before.digest


@pytest.mark.parametrize(
    ("auto_map", "message"),
    [
        ({"AutoModelForImageClassification": "someone/else--modeling.Mine"}, "code is never fetched from elsewhere"),
        (
            {"AutoModelForImageClassification": "missing.Mine"},
            r"expected module\.Class of a \.py file of the directory",
        ),
        ({"AutoModelForImageClassification": "modeling_mine.Other"}, "the code of the directory fails: .*Other"),
        ({"AutoModel": "modeling_mine.Mine"}, "names no AutoModelForImageClassification"),
        ("modeling_mine.Mine", "the weights do not fit ResNetForImageClassification"),
    ],
)
def test_code_that_is_not_in_the_directory_is_refused(given: Claims, auto_map: Any, message: str) -> None:
    parts = {"AutoConfig": AUTO_MAP["AutoConfig"]} | auto_map if isinstance(auto_map, dict) else auto_map
    changes = {} if isinstance(auto_map, dict) else {"model_type": "resnet"}
    write_config(given, auto_map=parts, **changes)
    with pytest.raises(UserError, match=message):
        load(given, allow_code=True)


def test_code_that_ends_the_process_is_told_of(given: Claims) -> None:
    (given.directory / "models" / "mine" / "modeling_mine.py").write_text("raise SystemExit(0)\n")
    with pytest.raises(
        UserError, match=r"spec\.model\.uri: the code of the directory fails: modeling_mine\.Mine"
    ) as caught:
        load(given, allow_code=True)
    assert caught.value.reason == "CodeFails"


def test_a_directory_that_needs_code_is_no_output(given: Claims) -> None:
    plan = given.plan(
        [{"prune": {"criterion": "Magnitude", "granularity": "Unstructured", "amount": "25%"}}],
        model=MODEL, task="ImageClassification", allow_code_execution=True,
        output={"uri": "pvc://out/mine", "formats": ["Onnx", "HuggingFace"]},
    )  # fmt: skip
    with pytest.raises(UserError, match=r"spec\.output\.formats: HuggingFace is not written of a model that brings"):
        flow.compress(plan, Store(claims=given.directory), Reporter(emit=lambda _: None))


def test_no_output_tells_where_the_code_lay(given: Claims, tmp_path: Path) -> None:
    torch_export(load(given, allow_code=True).take(), single((13,)), tmp_path / "model.pt2")
    with zipfile.ZipFile(tmp_path / "model.pt2") as archive:
        assert not [name for name in archive.namelist() if b"plimsoll-code-" in archive.read(name)]
