"""A pod uses the cores that it may use, not those it sees."""

import os
from pathlib import Path

import pytest

from plimsoll_job.cores import core_count, thread_count

SEEN = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("content", "cores"),
    [("max 100000", SEEN), ("100000 100000", 1), ("50000 100000", 1), ("990000000 100000", SEEN), ("torn", SEEN)],
)
def test_the_quota_cuts_the_cores(tmp_path: Path, content: str, cores: int) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert core_count(tmp_path / "cpu.max") == cores


def test_without_a_quota_all_cores_count(tmp_path: Path) -> None:
    assert core_count(tmp_path / "none") == SEEN


def test_small_batches_get_one_thread() -> None:
    assert thread_count(1_000_000, 1) == thread_count(1_000, 100) == 1
    assert thread_count(10**12, 1) == thread_count(10**7, 100) == thread_count(None, 1) == core_count()
