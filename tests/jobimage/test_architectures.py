"""Models of torchvision and timm are built by name, without their weights, and go the whole way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from tests.jobimage.bench import bench_of
from tests.jobimage.exported import export_bytes
from torch import nn
from torchvision import models

from plimsoll_api.plan import Plan
from plimsoll_api.spec import Architecture, Factorize, FactorizeMethod, ModelSource, NamedArchitecture, Prune
from plimsoll_job.compress import compress
from plimsoll_job.errors import UserError
from plimsoll_job.figures import count_parameters
from plimsoll_job.load.architectures.named import TORCHVISION_TRAINING_HEADS, build_timm, build_torchvision
from plimsoll_job.load.examples import example_of
from plimsoll_job.load.inputs import single
from plimsoll_job.load.model import load_model
from plimsoll_job.load.store import Store
from plimsoll_job.progress import Reporter
from plimsoll_job.techniques import factorize, prune
from plimsoll_job.techniques.shape import Candidate

IMAGE = (3, 64, 64)


def written(directory: Path, module: nn.Module, **architecture: Any) -> tuple[ModelSource, Store]:
    """Return the source of a model whose weights lie in a claim."""
    (directory / "models").mkdir()
    save_file(module.state_dict(), directory / "models" / "model.safetensors")
    source = ModelSource(uri="pvc://models", architecture=Architecture.model_validate(architecture))
    return source, Store(claims=directory)


def answers(module: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        output: torch.Tensor = module.eval()(*example_of(single(IMAGE)))
    return output


def test_a_torchvision_model_answers_as_it_did_when_its_weights_were_saved(tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = models.squeezenet1_1(weights=None, num_classes=7)
    source, store = written(tmp_path, module, torchvision={"name": "squeezenet1_1", "classes": 7})
    loaded = load_model(source, store)
    assert loaded.architecture == "torchvision squeezenet1_1"
    assert torch.equal(answers(loaded.take()), answers(module))


def test_a_timm_model_answers_as_it_did_when_its_weights_were_saved(tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = timm.create_model("test_efficientnet", num_classes=7)
    source, store = written(tmp_path, module, timm={"name": "test_efficientnet", "classes": 7})
    assert torch.equal(answers(load_model(source, store).take()), answers(module))


def test_what_is_done_to_one_copy_leaves_the_model_as_given(tmp_path: Path) -> None:
    module = timm.create_model("test_efficientnet", num_classes=7)
    source, store = written(tmp_path, module, timm={"name": "test_efficientnet", "classes": 7})
    loaded = load_model(source, store)
    with torch.no_grad():
        for parameter in loaded.take().parameters():
            parameter.zero_()
    assert torch.equal(answers(loaded.take()), answers(module))


def test_weights_of_another_number_of_classes_are_refused_by_name(tmp_path: Path) -> None:
    module = models.squeezenet1_1(weights=None, num_classes=7)
    source, store = written(tmp_path, module, torchvision={"name": "squeezenet1_1"})
    with pytest.raises(UserError, match=r"spec\.model\.uri: .* classifier\.1\.weight is \[7, .*instead of \[1000"):
        load_model(source, store)


@pytest.mark.parametrize(
    ("build", "name", "words"),
    [
        (build_torchvision, "resnet81", "no classification constructor of torchvision; did you mean resnet18 or"),
        (build_torchvision, "fasterrcnn_resnet50_fpn", "no classification constructor"),
        (build_torchvision, "zzzz", "no classification constructor of torchvision$"),
        (build_timm, "resnet81", "no constructor of timm; did you mean resnet18"),
    ],
)
def test_names_not_known_are_refused_with_those_near(build: Any, name: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        build(NamedArchitecture(name=name))
    assert error.value.message.startswith(f"spec.model.architecture.{build.__name__.removeprefix('build_')}.name: ")


def test_heads_that_only_training_reads_are_left_out(tmp_path: Path) -> None:
    module, unread = build_torchvision(NamedArchitecture(name="googlenet", classes=3))
    assert unread == TORCHVISION_TRAINING_HEADS["googlenet"]
    with_heads = models.googlenet(weights=None, num_classes=3, init_weights=False)
    assert {name for name in with_heads.state_dict() if not name.startswith(unread)} == set(module.state_dict())
    source, store = written(tmp_path, with_heads, torchvision={"name": "googlenet", "classes": 3})
    assert torch.equal(answers(load_model(source, store).take()), answers(with_heads))


def test_images_of_a_shape_that_the_model_does_not_take_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the model refuses samples of the shape \[1, 8, 8\]"):
        compress(plan_of(tmp_path, (1, 8, 8)), Store(claims=tmp_path), Reporter(emit=lambda _: None))


def test_a_job_takes_a_model_by_name_and_the_size_of_its_images_from_the_data(tmp_path: Path) -> None:
    summary = compress(plan_of(tmp_path, (3, 32, 32)), Store(claims=tmp_path), Reporter(emit=lambda _: None))
    assert summary.candidate is not None
    manifest = (tmp_path / summary.candidate.uri.removeprefix("pvc://") / "manifest.json").read_text()
    assert '"architecture":"timm test_resnet"' in manifest
    assert '"shape":[null,3,32,32]' in manifest


def plan_of(directory: Path, shape: tuple[int, ...]) -> Plan:
    torch.manual_seed(0)
    source, _ = written(
        directory, timm.create_model("test_resnet", num_classes=5), timm={"name": "test_resnet", "classes": 5}
    )
    (directory / "data").mkdir()
    (directory / "out").mkdir()
    np.savez(directory / "data" / "some.npz", inputs=np.random.default_rng(0).random((8, *shape), dtype=np.float32))
    return Plan.model_validate(
        {
            "image": "",
            "model": source,
            "task": "ImageClassification",
            "calibration": {"uri": "pvc://data/some.npz"},
            "steps": [{"prune": {"criterion": "Activation", "amount": "20%"}}],
            "seed": 0,
            "output": {"uri": "pvc://out"},
        }
    )


ARCHITECTURES = [
    *((build_timm, name) for name in ("test_resnet", "test_convnext", "test_efficientnet")),
    (build_torchvision, "mobilenet_v3_small"),
    pytest.param(build_torchvision, "resnet18", marks=pytest.mark.slow),
    pytest.param(build_torchvision, "convnext_tiny", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("build", "name"), ARCHITECTURES)
@pytest.mark.parametrize("technique", ["prune", "factorize"])
def test_structure_changes_are_exported(build: Any, name: str, technique: str) -> None:
    torch.manual_seed(0)
    built = build(NamedArchitecture(name=name, classes=10))
    module = (built[0] if isinstance(built, tuple) else built).eval()
    bench = bench_of(module, signature=single(IMAGE))
    if technique == "prune":
        applied = prune.apply(Prune(criterion="Magnitude", amount="30%"), Candidate(module), bench)
        assert count_parameters(applied.candidate.module) == pytest.approx(0.7 * count_parameters(module), rel=0.03)
    else:
        settings = Factorize(method=FactorizeMethod.SVD, amount="10%")
        applied = factorize.apply(settings, Candidate(module), bench)
        assert count_parameters(applied.candidate.module) <= 0.91 * count_parameters(module)
    export_bytes(applied.candidate.module, bench.signature)
