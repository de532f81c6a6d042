"""The peak of host memory is that of the pod's own processes, and of those together that ran at one time."""

from __future__ import annotations

import subprocess
import sys

import pytest

MIB = 1 << 20


def printed(code: str) -> list[int]:
    """Return the numbers that a fresh process prints; this one holds more than any of the tests."""
    program = f"from plimsoll_job.memory import *\n{code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return [int(number) for number in done.stdout.split()]


def test_the_peak_stays_when_the_memory_is_given_back_and_is_not_the_parents() -> None:
    before, after = printed(
        f"print(peak_memory_bytes()); held = bytearray(b'1') * {200 * MIB}; del held; print(peak_memory_bytes())"
    )
    assert before < 100 * MIB
    assert abs(after - before - 200 * MIB) < 20 * MIB


def test_what_ran_beside_counts_with_what_was_held_meanwhile() -> None:
    held = f"before = peak_memory_bytes(); held = bytearray(b'1') * {200 * MIB}"
    (added,) = printed(f"{held}; count_beside({50 * MIB}); count_beside(1); print(peak_memory_bytes() - before)")
    assert abs(added - 250 * MIB) < 20 * MIB
    (added,) = printed(f"{held}; del held; count_beside({50 * MIB}); print(peak_memory_bytes() - before)")
    assert abs(added - 200 * MIB) < 20 * MIB


CALIBRATION = """
import sys
import numpy as np, torch
from torch import nn
from plimsoll_api.spec import RangeMethod
from plimsoll_job.load.data import Samples
from plimsoll_job.load.inputs import single
from plimsoll_job.memory import peak_memory_bytes
from plimsoll_job.techniques.quantize.float_model import float_model_of
from plimsoll_job.techniques.quantize.ranges import observe_ranges
from plimsoll_job.techniques.shape import Candidate

layers = [nn.Conv2d(3, 8, 1), *(one for _ in range(30) for one in (nn.ReLU(), nn.Conv2d(8, 8, 1)))]
samples = Samples({"inputs": np.ones((20, 3, 256, 256), np.float32)}, None, "")
model = float_model_of(Candidate(nn.Sequential(*layers)), single((3, 256, 256)))
before = peak_memory_bytes()
observe_ranges(model, samples, RangeMethod(sys.argv[1]))
print((peak_memory_bytes() - before) / (samples.batch_size * 8 * 256 * 256 * 4))
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["MinMax", "Percentile"])
def test_calibration_holds_a_few_activations_at_a_time(method: str) -> None:
    ended = subprocess.run([sys.executable, "-c", CALIBRATION, method], capture_output=True, text=True, check=True)
    # Of 61: a node's input and output, and what the allocator has not given back yet.
    assert float(ended.stdout.splitlines()[-1]) < 10
