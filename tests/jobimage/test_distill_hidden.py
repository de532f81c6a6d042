"""Losses on hidden layers: by their formulas, between layers that match, and with an effect on what is learned."""

from typing import Any

import pytest
import torch
from tests.jobimage.bench import bench_of, samples_of
from tests.jobimage.modules import PlainCNN, Residual
from torch import nn

from plimsoll_api.spec import Distill, LayerPair, Prune
from plimsoll_job.errors import UserError
from plimsoll_job.load.inputs import single
from plimsoll_job.techniques import distill, prune
from plimsoll_job.techniques.distill import teacher as teacher_of
from plimsoll_job.techniques.distill.losses import RELATION_GROUP, attention_distance, attention_map, relation_distance
from plimsoll_job.techniques.distill.pairs import Couple, matching_pairs, pairs_of
from plimsoll_job.techniques.shape import Applied, Candidate
from plimsoll_job.zoo import wine_mlp

IMAGES = samples_of((3, 8, 8), 48)


def seeded(kind: type[nn.Module], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return kind().eval()


def pruned() -> Candidate:
    """The teacher's own model with fewer channels, everywhere."""
    order = Prune.model_validate({"criterion": "Magnitude", "amount": "55%"})
    return prune.apply(order, Candidate(seeded(Residual, 0)), bench_of(seeded(Residual, 0))).candidate


def taught(candidate: Candidate, *losses: dict[str, Any], **changes: Any) -> Applied:
    order = {"epochs": 8, "batchSize": 16, "learningRate": "0.003", "losses": list(losses)} | changes
    bench = bench_of(seeded(Residual, 0), train=IMAGES)
    return distill.apply(Distill.model_validate(order), candidate, bench)


def test_an_attention_map_is_the_sum_of_squares_over_channels() -> None:
    features = torch.tensor([[[[1.0, 2.0]], [[2.0, 0.0]]]])
    assert attention_map(features, 1).tolist() == [[[5, 4]]]
    assert attention_distance(attention_map(3 * features, 1), attention_map(features, 1)).item() == pytest.approx(0)


def test_maps_without_overlap_are_two_apart() -> None:
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert attention_distance(one, other).item() == pytest.approx(2)
    assert attention_distance(3 * one, other).item() == pytest.approx(2)
    assert attention_distance(one, one).item() == 0


def test_relations_are_those_of_the_paper() -> None:
    given = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    wanted = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])

    def huber(one: list[float], other: list[float], count: int) -> float:
        return sum(0.5 * (a - b) ** 2 for a, b in zip(one, other, strict=True)) / count

    root = 2**0.5
    distances = huber([3 / 4, 4 / 4, 5 / 4] * 2, [3 / (2 + root), 3 / (2 + root), 3 * root / (2 + root)] * 2, 9)
    # Of the three corners, each seen from both sides: 0, 3/5 and 4/5 against 0 and two of half a right angle.
    angles = huber([0, 0.6, 0.8] * 2, [0, root / 2, root / 2] * 2, 27)
    assert relation_distance(given, wanted).item() == pytest.approx(distances + 2 * angles, rel=1e-4)


def test_relations_do_not_depend_on_size_place_or_direction() -> None:
    torch.manual_seed(0)
    samples = torch.randn(20, 6)
    turned = 3 * samples @ torch.linalg.qr(torch.randn(6, 6)).Q + 5
    assert relation_distance(turned, samples).item() == pytest.approx(0, abs=1e-5)
    assert relation_distance(torch.randn(20, 6), samples).item() > 0.05


@pytest.mark.parametrize("count", [1, 2, RELATION_GROUP, RELATION_GROUP + 1, 3 * RELATION_GROUP])
def test_relations_of_any_number_of_samples_can_be_learned_by(count: int) -> None:
    torch.manual_seed(0)
    given = torch.randn(count, 4, requires_grad=True)
    relation_distance(given, torch.randn(count, 4)).backward()  # type: ignore[no-untyped-call]
    assert given.grad is not None
    assert torch.isfinite(given.grad).all()


def test_equal_samples_have_finite_gradients() -> None:
    given = torch.ones(5, 4, requires_grad=True)
    relation_distance(given, torch.randn(5, 4)).backward()  # type: ignore[no-untyped-call]
    assert given.grad is not None
    assert torch.isfinite(given.grad).all()


def test_the_last_layer_of_each_spatial_size_is_paired() -> None:
    couple = Couple(seeded(PlainCNN, 0), seeded(PlainCNN, 1), single((3, 8, 8)))
    pairs = matching_pairs(couple)
    # Convolutions on 8x8, 6x6, pooled to 3x3, 2x2; then flattened. The last linear layer is the output.
    assert [pair.teacher.name for pair in pairs] == ["body.2", "body.5", "body.6", "body.8", "body.9"]
    assert [pair.teacher.grid for pair in pairs] == [(8, 8), (6, 6), (3, 3), (2, 2), ()]
    assert all(pair.teacher.name == pair.student.name for pair in pairs)


def test_layers_of_models_that_differ_are_paired_by_size() -> None:
    pairs = matching_pairs(Couple(seeded(Residual, 0), seeded(PlainCNN, 1), single((3, 8, 8))))
    assert pairs[0].to_wire() == {"teacher": "outer.1", "student": "body.2"}


def test_pairs_that_cannot_be_compared_are_refused() -> None:
    couple = Couple(seeded(Residual, 0), seeded(PlainCNN, 1), single((3, 8, 8)))
    for pair, message in (
        (("inner.7", "body.0"), r"x.layers\[0\].teacher: the teacher has no layer 'inner.7'"),
        (("inner.0", None), r"x.layers\[0\].student: the model has no layer 'inner.0'"),
        (("inner.0", "body.8"), r"x.layers\[0\]: inner.0 answers \[48, 8, 8\] and body.8 \[8, 2, 2\] for a sample"),
        (("head", "body.10"), r"x.layers\[0\].teacher: head answers \[5\] for a sample, which has no positions to"),
    ):
        ordered = LayerPair.model_validate({"teacher": pair[0]} | ({"student": pair[1]} if pair[1] else {}))
        with pytest.raises(UserError, match=message):
            pairs_of([ordered], couple, "x", spatial=True)


def test_models_without_positions_have_no_attention() -> None:
    bench = bench_of(wine_mlp().eval(), train=samples_of((13,), 20))
    order = Distill.model_validate({"epochs": 1, "losses": [{"attention": {}}]})
    with pytest.raises(UserError, match=r"losses\[0\].attention: no two layers before the outputs have the same"):
        distill.apply(order, Candidate(wine_mlp().eval()), bench)


@pytest.mark.parametrize("kind", ["features", "attention", "relation"])
def test_each_loss_brings_the_layers_nearer(kind: str) -> None:
    details = taught(pruned(), {"logits": {"weight": "50%"}}, {kind: {}}).details
    told = details["losses"][kind]
    assert told["curve"][-1] < 0.6 * told["curve"][0]
    assert told["weight"] == 0.5
    assert details["teacher"]["asked"] == "Once"


def test_all_losses_may_be_asked_together() -> None:
    kinds = ("logits", "labels", "features", "attention", "relation")
    details = taught(pruned(), *({kind: {}} for kind in kinds), epochs=2).details
    assert list(details["losses"]) == list(kinds)
    assert {told["weight"] for told in details["losses"].values()} == {0.2}


def test_widths_that_differ_are_joined_by_a_map_that_is_thrown_away() -> None:
    candidate = pruned()
    named = [{"teacher": "inner.2"}, {"teacher": "stem.2", "student": "outer.1"}]
    applied = taught(candidate, {"features": {"layers": named}})
    told = applied.details["losses"]["features"]["layers"]
    inner = candidate.module.get_submodule("inner.0").weight.shape[0]  # type: ignore[index]
    assert told[0] == {"teacher": "inner.2", "student": "inner.2", "projection": [inner, 48]}
    assert applied.candidate.module.state_dict().keys() == candidate.module.state_dict().keys()


def test_a_teacher_whose_layers_do_not_fit_in_memory_is_asked_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    losses: list[dict[str, Any]] = [{"logits": {}}, {"features": {}}]
    once = taught(pruned(), *losses, epochs=2)
    monkeypatch.setattr(teacher_of, "MAX_HIDDEN_BYTES", 1_000)
    each = taught(pruned(), *losses, epochs=2)
    assert (once.details["teacher"]["asked"], each.details["teacher"]["asked"]) == ("Once", "EachEpoch")
    assert each.details["loss"] == pytest.approx(once.details["loss"], rel=1e-4)
