"""Structured pruning on the families of models that people have."""

from __future__ import annotations

import pytest
import torch
from tests.jobimage.architectures import CLASSIFIERS, TRANSFORMERS
from tests.jobimage.bench import bench_of
from tests.jobimage.exported import export_bytes
from torch import nn

from plimsoll_api.spec import Prune
from plimsoll_job.figures import count_parameters
from plimsoll_job.load.data import Samples
from plimsoll_job.load.examples import example_of
from plimsoll_job.load.inputs import Signature
from plimsoll_job.techniques import prune
from plimsoll_job.techniques.prune.coupling import find_groups
from plimsoll_job.techniques.replay import replay
from plimsoll_job.techniques.shape import Applied, Candidate

#: The small models' heads and embeddings come no nearer.
NEAR = 0.0101


def pruned(model: nn.Module | Candidate, signature: Signature, criterion: str, amount: str = "30%") -> Applied:
    candidate = model if isinstance(model, Candidate) else Candidate(model)
    inputs = example_of(signature, 16)
    samples = Samples({one.name: array.numpy() for one, array in zip(signature, inputs, strict=True)}, None, "")
    bench = bench_of(candidate.module, calibration=samples, signature=signature)
    return prune.apply(Prune.model_validate({"criterion": criterion, "amount": amount}), candidate, bench)


@pytest.mark.parametrize("criterion", ["Magnitude", "Activation", "Taylor", "Redundancy"])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_lose_neurons_and_whole_heads(name: str, criterion: str) -> None:
    build, signature = TRANSFORMERS[name]
    torch.manual_seed(0)
    module = build()
    applied = pruned(module, signature, criterion)
    left = applied.candidate.module
    assert 1 - count_parameters(left) / count_parameters(module) == pytest.approx(0.3, abs=NEAR)
    for group in (one for one in find_groups(left, signature) if one.of_heads):
        owner = left.get_submodule(group.root.rpartition(".")[0])
        counts = [getattr(owner, one) for one in ("num_attention_heads", "num_heads", "n_heads") if hasattr(owner, one)]
        assert counts == [len(group.units)]
        (writer,) = group.consumers
        width = left.get_parameter(f"{writer.name}.weight").shape[1]
        assert (width, group.unit) in {(16 * len(group.units), 16), (16 * len(group.units), 48)}
        assert getattr(owner, "all_head_size", width) == width
    torch.manual_seed(1)
    replayed = replay(build(), signature, applied.candidate.changes)
    replayed.load_state_dict(left.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(replayed(*example_of(signature, 3)), left(*example_of(signature, 3)))


@pytest.mark.parametrize("name", ["bert", "gpt2", "swin"])
def test_transformers_are_pruned_twice_and_exported(name: str) -> None:
    build, signature = TRANSFORMERS[name]
    torch.manual_seed(0)
    once = pruned(build(), signature, "Magnitude", "40%").candidate
    twice = pruned(once, signature, "Magnitude").candidate
    heads = [len(group.units) for group in find_groups(twice.module, signature) if group.of_heads]
    assert any(count < 4 for count in heads)
    replayed = replay(build(), signature, twice.changes)
    replayed.load_state_dict(twice.module.state_dict(), strict=True)
    export_bytes(replayed, signature)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_of_torchvision(name: str) -> None:
    build, signature = CLASSIFIERS[name]
    torch.manual_seed(0)
    module = build()
    applied = pruned(module, signature, "Magnitude")
    assert 1 - count_parameters(applied.candidate.module) / count_parameters(module) == pytest.approx(0.3, abs=NEAR)
