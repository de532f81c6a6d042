"""Images in training are moved and mirrored as ordered, and the teacher sees the same ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.jobimage.bench import bench_of, samples_of
from tests.jobimage.modules import Flattened, plain_mlp
from torch import nn

from plimsoll_api.spec import Distill
from plimsoll_api.steps.training import Augmentation
from plimsoll_job.errors import UserError
from plimsoll_job.load.inputs import single
from plimsoll_job.techniques import distill
from plimsoll_job.techniques.distill.augment import augment
from plimsoll_job.techniques.shape import Applied, Candidate


def images(count: int = 64) -> torch.Tensor:
    """Return images whose pixels are all different, none of them zero."""
    return 1 + torch.arange(count * 2 * 8 * 10, dtype=torch.float32).view(count, 2, 8, 10)


def test_images_are_moved_and_zeros_come_in() -> None:
    torch.manual_seed(0)
    moved = augment(images(), Augmentation.model_validate({"shift": "25%"}))
    shifts = set()
    for before, after in zip(images(), moved, strict=True):
        _, row, column = (after != 0).nonzero()[0].tolist()
        _, was_row, was_column = (before == after[0, row, column]).nonzero()[0].tolist()
        down, right = row - was_row, column - was_column
        shifts.add((down, right))
        wanted = torch.roll(before, (down, right), (1, 2))
        assert torch.equal(after, wanted * (after != 0))
        assert int((after[0] != 0).sum()) == (8 - abs(down)) * (10 - abs(right))
    assert {down for down, _ in shifts} == {-2, -1, 0, 1, 2}
    assert max(right for _, right in shifts) == 2


def test_images_are_mirrored_only_where_that_is_asked_for() -> None:
    torch.manual_seed(0)
    still = Augmentation.model_validate({"shift": 0})
    assert torch.equal(augment(images(), still), images())
    mirrored = augment(images(), Augmentation.model_validate({"shift": 0, "horizontalFlip": True}))
    flipped = [torch.equal(one, other.flip(-1)) for one, other in zip(mirrored, images(), strict=True)]
    assert 16 < sum(flipped) < 48
    assert all(is_flipped or torch.equal(*pair) for is_flipped, *pair in zip(flipped, mirrored, images(), strict=True))


class Watched(nn.Module):
    """Keeps what it is asked."""

    input_shape = (1, 4, 4)

    def __init__(self, seen: list[torch.Tensor]) -> None:
        super().__init__()
        self.inner, self.seen = Flattened(), seen

    def __deepcopy__(self, memo: object) -> Watched:
        return self

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        self.seen.append(given.clone())
        answers: torch.Tensor = self.inner(given)
        return answers


def taught(seen: list[torch.Tensor], by_student: list[torch.Tensor], **augmentation: Any) -> Applied:
    torch.manual_seed(0)
    teacher, student = Watched(seen).eval(), Watched(by_student).eval()
    order = {"epochs": 2, "batchSize": 20, "augmentation": augmentation}
    bench = bench_of(teacher, train=samples_of((1, 4, 4), 40))
    return distill.apply(Distill.model_validate(order), Candidate(student), bench)


def test_the_teacher_sees_what_the_model_sees() -> None:
    seen: list[torch.Tensor] = []
    by_student: list[torch.Tensor] = []
    details = taught(seen, by_student, shift="25%").details
    assert all(torch.equal(*pair) for pair in zip(seen[-4:], by_student[-4:], strict=True))
    assert details["teacher"]["asked"] == "EachEpoch"
    assert details["augmentation"] == {"shift": "25%", "horizontalFlip": False}
    assert taught([], [], shift="25%").candidate.fingerprint() == taught([], [], shift="25%").candidate.fingerprint()


def test_what_is_no_image_is_not_moved() -> None:
    bench = bench_of(plain_mlp().eval(), train=samples_of((13,)), signature=single((13,)))
    order = Distill.model_validate({"epochs": 1, "augmentation": {}})
    with pytest.raises(UserError, match=r"augmentation: moves and mirrors images .*, the model takes \[13\]"):
        distill.apply(order, Candidate(plain_mlp().eval()), bench)
