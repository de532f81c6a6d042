"""A model is on the device while it answers calibration data, and on the host before and after."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.jobimage.bench import batches_of, bench_of, samples_of
from tests.jobimage.modules import Residual
from tests.jobimage.planted import built
from torch import nn

from plimsoll_api.spec import Factorize, Prune
from plimsoll_job.errors import UserError
from plimsoll_job.load.data import Samples
from plimsoll_job.ranks import Ranks
from plimsoll_job.techniques import factorize, moments, prune
from plimsoll_job.techniques.moments import Moments, bundled, home_of
from plimsoll_job.techniques.observe import HOST, Batches, moved
from plimsoll_job.techniques.padding import observe_inputs
from plimsoll_job.techniques.shape import Candidate

#: A device that every machine has: shapes without numbers.
META = torch.device("meta")


class Tied(nn.Module):
    """Layers that share a weight, one that keeps a list of its own, and a buffer whose numbers share their memory."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.LSTM(4, 4, batch_first=True)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.register_buffer("shift", torch.ones(1).expand(4), persistent=False)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.second(self.first(self.memory(rows)[0])) + self.shift
        return answers


def state_of(module: nn.Module) -> dict[str, tuple[int, int, torch.device]]:
    """Return which object each tensor is, where its numbers are kept, and on which device."""
    tensors = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    return {name: (id(tensor), tensor.data_ptr(), tensor.device) for name, tensor in tensors.items()}


def test_what_layers_receive_is_on_the_device() -> None:
    module, seen = Tied().eval(), []
    before = state_of(module)
    batches = Batches(batches_of(torch.randn(3, 2, 4), torch.randn(1, 2, 4)).read, META)
    observe_inputs(module, ["second"], lambda name, inputs, _: seen.append((name, len(inputs), inputs.device)), batches)
    assert seen == [("second", 3, META), ("second", 1, META)]
    assert state_of(module) == before


def test_every_tensor_is_there_once() -> None:
    module = Tied().eval()
    with moved(META, module, module):
        assert {tensor.device for tensor in (*module.parameters(), *module.buffers())} == {META}
        assert module.second.weight is module.first.weight
        assert isinstance(module.first.weight, nn.Parameter)
        assert module(torch.randn(2, 3, 4, device="meta")).shape == (2, 3, 4)
    assert module(torch.randn(2, 3, 4)).shape == (2, 3, 4)


def test_on_a_processor_nothing_is_moved() -> None:
    module = Tied()
    before = state_of(module)
    with moved(HOST, module):
        assert state_of(module) == before


def test_a_model_is_back_on_the_host_after_an_error() -> None:
    module = Tied().eval()
    before = state_of(module)
    with pytest.raises(KeyError), moved(META, module):
        raise KeyError
    assert state_of(module) == before


def test_a_model_that_cannot_leave_the_host_is_said() -> None:
    module = Tied().eval()
    del module.shift
    module.shift = torch.ones(4)
    with pytest.raises(UserError, match=r"spec.model.architecture: .* register them as buffers, or ask for no GPU"):
        observe_inputs(module, ["second"], lambda *_: None, Batches(batches_of(torch.randn(3, 2, 4)).read, META))


PASSES: dict[str, tuple[Any, Any]] = {
    "mean": (prune, Prune.model_validate({"criterion": "Activation", "amount": "30%"})),
    "redundancy": (prune, Prune.model_validate({"criterion": "Redundancy", "amount": "30%"})),
    "taylor": (prune, Prune.model_validate({"criterion": "Taylor", "amount": "30%"})),
    "wanda": (
        prune,
        Prune.model_validate(
            {"criterion": "Activation", "statistic": "Wanda", "granularity": "Unstructured", "amount": "30%"}
        ),
    ),
    "scan": (prune, Prune.model_validate({"criterion": "Magnitude", "amount": "30%", "allocation": "Sensitivity"})),
    "scan of weights": (
        prune,
        Prune.model_validate(
            {"criterion": "Magnitude", "granularity": "Unstructured", "amount": "30%", "allocation": "Sensitivity"}
        ),
    ),
    "factorize": (factorize, Factorize.model_validate({"method": "ActivationSvd", "keep": "90%"})),
}


@pytest.mark.parametrize("name", PASSES)
def test_every_pass_is_on_the_device_of_the_training_and_leaves_the_model_on_the_host(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    technique, settings = PASSES[name]
    module = built(Residual)
    before, weights = state_of(module), copy.deepcopy(module.state_dict())
    bench = bench_of(module, calibration=samples_of((3, 8, 8)))
    monkeypatch.setattr(Ranks, "device", META)
    # Its statistics have no numbers that could be read.
    with pytest.raises(RuntimeError, match="meta"):
        technique.apply(settings, Candidate(module), bench)
    assert state_of(module) == before
    assert all(torch.equal(tensor, weights[key]) for key, tensor in module.state_dict().items())


def test_batches_are_read_anew_by_each_pass() -> None:
    batches = Batches.of(Samples({"rows": torch.randn(5, 2).numpy()}, None, ""))
    assert [len(one) for (one,) in batches] == [len(one) for (one,) in batches] == [5]


def test_layers_go_together_as_far_as_their_moments_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two of 64 channels, and not a third.
    monkeypatch.setattr(moments, "MOST_BYTES", 2 * 64 * 64 * 8)
    widths = [64, 64, 65, 500, 8, 8]
    assert list(bundled(widths, lambda width: [width])) == [[64, 64], [65], [500], [8, 8]]
    assert list(bundled([], lambda _: [1])) == []


def test_moments_are_kept_where_a_gpu_has_room_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda", 0)
    # Twice what two layers of 64 channels need.
    enough = SimpleNamespace(total_memory=2 * 2 * 64 * 65 * 8)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: enough)
    assert home_of([64, 64], gpu) == gpu
    assert home_of([64, 65], gpu) == home_of([64, 65], HOST) == HOST
    held = Moments(3, META)
    held.add(torch.ones(2, 3))
    assert held.second(centred=True).device == held.mean.device == META
