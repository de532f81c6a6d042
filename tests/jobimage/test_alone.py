"""A model answers each sample by itself and alike each time, or is refused with the layer that does otherwise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from plimsoll_job.errors import UserError
from plimsoll_job.export.onnx_export import export_onnx
from plimsoll_job.load.alone import check_alone
from plimsoll_job.load.inputs import single
from plimsoll_job.load.roles import check_answers
from plimsoll_job.load.signature import signature_of

IMAGES = (1, 9, 9)
FIELD = "spec.model.architecture"


class Stuck(nn.BatchNorm2d):
    """As models that call train() on their norms in forward, or whose eval() does not reach them."""

    def train(self, mode: bool = True) -> "Stuck":
        super().train(True)
        return self


class Noise(nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs + torch.randn_like(inputs)


class Network(nn.Module):
    """A convolution, then a layer or a function, then three classes."""

    input_shape = IMAGES

    def __init__(self, middle: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.middle = nn.Sequential(nn.ReLU(), middle) if isinstance(middle, nn.Module) else nn.Identity()
        self.function = (lambda inputs: inputs) if isinstance(middle, nn.Module) else middle
        self.head = nn.Linear(4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.head(self.function(self.middle(self.conv(images))).mean((2, 3)))
        return answer


def network(middle: Any) -> nn.Module:
    torch.manual_seed(0)
    return Network(middle).eval()


@pytest.mark.parametrize(
    ("middle", "told"),
    [
        (nn.BatchNorm2d(4, track_running_stats=False), r"middle\.1 \(BatchNorm2d\); it keeps no running statistics"),
        (Stuck(4), r"middle\.1 \(Stuck\); it is left in training mode"),
        (lambda x: functional.batch_norm(x, None, None, training=True), r"the model itself \(Network\)"),
        (lambda x: x.softmax(0), r"the model itself \(Network\)"),
        (nn.Softmax(0), r"middle\.1 \(Softmax\)"),
    ],
)
def test_answers_that_depend_on_the_batch_are_refused_with_the_layer(middle: Any, told: str) -> None:
    with pytest.raises(UserError, match=rf"^{FIELD}: its answers depend on the batch: .*, by {told}") as caught:
        signature_of(network(middle), {}, "ImageClassification")  # type: ignore[arg-type]
    assert caught.value.reason == "AnswersDependOnBatch"


@pytest.mark.parametrize(
    ("middle", "told"),
    [
        (functional.dropout, r"the model itself \(Network\)"),
        (lambda x: functional.rrelu(x, 0.1, 0.9, training=True), r"the model itself \(Network\)"),
        (nn.FractionalMaxPool2d(2, output_ratio=0.7), r"middle\.1 \(FractionalMaxPool2d\)"),
        (Noise(), r"middle\.1 \(Noise\)"),
    ],
)
def test_answers_that_are_drawn_are_refused_with_the_layer(middle: Any, told: str) -> None:
    with pytest.raises(UserError, match=rf"^{FIELD}: its answers are drawn at random, by {told}") as caught:
        signature_of(network(middle), {}, "ImageClassification")  # type: ignore[arg-type]
    assert caught.value.reason == "AnswersAtRandom"


@pytest.mark.parametrize(
    "middle",
    [
        nn.BatchNorm2d(4),
        nn.RReLU(),
        nn.Dropout2d(),
        nn.AlphaDropout(),
        nn.GroupNorm(2, 4),
        nn.InstanceNorm2d(4),
        nn.InstanceNorm2d(4, track_running_stats=True),
        lambda x: x / 0,
    ],
)
def test_layers_that_do_so_in_training_only_are_not_refused(middle: Any) -> None:
    check_alone(network(middle), single(IMAGES), FIELD)


def test_a_model_that_cannot_answer_one_sample_is_told_so() -> None:
    class Stuck1d(nn.BatchNorm1d):
        def train(self, mode: bool = True) -> "Stuck1d":
            super().train(True)
            return self

    with pytest.raises(UserError, match="refuses one alone: torch, at layer 1: ValueError"):
        check_alone(nn.Sequential(nn.Linear(4, 4), Stuck1d(4)).eval(), single((4,)), FIELD)


def test_teachers_and_students_are_held_to_it_too() -> None:
    field = "spec.steps[0].distill.teacher"
    with pytest.raises(UserError, match=rf"^{field.replace('[', chr(92) + '[')}: its answers depend on the batch"):
        check_answers(network(nn.Softmax(0)), network(nn.ReLU()), single(IMAGES), field)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("running", [True, False])
def test_instance_norms_are_exported_as_they_answer(affine: bool, running: bool, tmp_path: Path) -> None:
    module = network(nn.InstanceNorm2d(4, affine=affine, track_running_stats=running))
    norm = module.get_submodule("middle.1")
    if running:
        nn.init.normal_(norm.get_buffer("running_mean"))
        nn.init.uniform_(norm.get_buffer("running_var"), 0.5, 2)
    if affine:
        nn.init.normal_(norm.get_parameter("weight"))
        nn.init.normal_(norm.get_parameter("bias"))
    export_onnx(module, single(IMAGES), tmp_path / "model.onnx")


def test_instance_norms_of_sequences_are_exported(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv1d(2, 4, 3), nn.InstanceNorm1d(4, track_running_stats=True), nn.Flatten()).eval()
    nn.init.normal_(module.get_buffer("1.running_mean"))
    export_onnx(module, single((2, 8)), tmp_path / "model.onnx")


class Offset(nn.Module):
    """Its answers are numbers near to 1,000, of which a part is of the batch, drawn, or nothing but their own."""

    def __init__(self, part: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.head, self.part = nn.Linear(6, 2), part

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = 1000 + self.head(rows) + self.part(rows)
        return answers


@pytest.mark.parametrize(
    ("part", "told"),
    [
        (lambda rows: 0.3 * rows.mean(0, keepdim=True)[:, :2], "depend on the batch"),
        (lambda rows: torch.rand_like(rows[:, :2]), "drawn at random"),
    ],
)
def test_a_constant_of_all_answers_hides_no_difference(part: Callable[[torch.Tensor], torch.Tensor], told: str) -> None:
    """Differences were measured by the largest answer: of numbers near to 1,000 one of 1 was none."""
    torch.manual_seed(0)
    with pytest.raises(UserError, match=told):
        check_alone(Offset(part).eval(), single((6,)), FIELD)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0])
def test_answers_near_to_a_constant_are_no_difference(scale: float) -> None:
    torch.manual_seed(0)
    module = Offset(lambda rows: 0 * rows[:, :2]).eval()
    with torch.no_grad():
        module.get_parameter("head.weight").mul_(scale)
    check_alone(module, single((6,)), FIELD)
