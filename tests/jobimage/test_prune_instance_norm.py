"""Instance normalisation loses the channels that its convolution loses, running statistics among them."""

import pytest
import torch
from torch import nn

from plimsoll_job.load.inputs import single
from plimsoll_job.techniques.prune.coupling import cut
from plimsoll_job.techniques.shape import Cut


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("running", [True, False])
def test_running_statistics_go_with_their_channels(affine: bool, running: bool) -> None:
    torch.manual_seed(0)
    norm = nn.InstanceNorm2d(8, affine=affine, track_running_stats=running)
    if running:
        nn.init.normal_(norm.get_buffer("running_mean"))
        nn.init.uniform_(norm.get_buffer("running_var"), 0.5, 2)
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3), norm, nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 3)
    ).eval()
    with torch.no_grad():
        # Read by nobody: they can go without a trace.
        module.get_parameter("3.weight")[:, [1, 4, 6]] = 0
    images = torch.randn(2, 1, 8, 8)
    pruned = cut(module, single((1, 8, 8)), [Cut("0", (1, 4, 6))])
    torch.testing.assert_close(pruned(images), module(images))
    if running:
        assert pruned.get_buffer("1.running_mean").shape == pruned.get_buffer("1.running_var").shape == (5,)
