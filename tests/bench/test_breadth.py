"""The walk over models: small rows pass the whole way, and whatever goes wrong in a row is a row with its reason."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from bench.breadth.__main__ import in_part, part
from bench.breadth.outcome import Outcome
from bench.breadth.report import lines, share_passed
from bench.breadth.subjects import Subject, firsts, in_rounds
from bench.breadth.walk import reason_of
from bench.child import ROOT, Ended, run
from bench.forked import Forks
from bench.page import put_between_markers
from bench.rows import append, read

MIB = 1 << 20


def python(code: str, *, limit_seconds: float = 20, memory_bytes: int | None = None) -> str:
    return run([sys.executable, "-c", code], limit_seconds=limit_seconds, memory_bytes=memory_bytes).reason


def outcome(model: str = "torchvision/one", technique: str = "prune", reason: str = "", commit: str = "abc") -> Outcome:
    return Outcome(model, technique, commit, reason, seconds=2.0, peak_memory_bytes=MIB, parameters=1_500_000, side=64)


def test_a_crash_a_hang_and_a_hunger_for_memory_are_reasons() -> None:
    assert python("import os; os.abort()").startswith("SIGABRT")
    assert python("print('so far'); raise ValueError('no such layer')") == "ValueError: no such layer"
    assert python("import time; time.sleep(60)", limit_seconds=0.5).startswith("not done after")
    assert python(f"bytearray({2000 * MIB})", memory_bytes=500 * MIB) == "MemoryError"


def test_a_forked_piece_ends_as_one_of_its_own_does_and_finds_the_libraries_loaded() -> None:
    forks = Forks(["numpy"], {})

    def ended(what: str, limit_seconds: float = 60) -> Ended:
        return forks.run("tests.bench.piece", [what], limit_seconds=limit_seconds, memory_bytes=500 * MIB)

    assert (ended("pass").code, ended("pass").output) == (0, "numpy is there\n")
    assert (ended("fail").code, ended("fail").reason) == (1, "numpy is there")
    assert ended("crash").reason.startswith("SIGABRT")
    assert ended("eat").reason == "MemoryError"
    assert ended("hang", limit_seconds=1).reason.startswith("not done after")


def test_a_forked_piece_ends_with_who_asked_for_it(tmp_path: Path) -> None:
    program = tmp_path / "asks.py"
    program.write_text(
        "from bench.forked import Forks\n"
        "if __name__ == '__main__':\n"
        "    Forks([], {}).run('tests.bench.piece', ['hang'], limit_seconds=60, memory_bytes=1 << 30)\n"
    )
    asks = subprocess.Popen([sys.executable, program], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        wait_until(lambda: len(descendants(asks.pid)) >= 3, "the piece has begun")
        begun = descendants(asks.pid)
    finally:
        asks.kill()
        asks.wait()
    wait_until(lambda: not any(one.is_running() for one in begun), "the piece and the server that forked it are gone")


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 50) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, f"not seen in {seconds:.0f} s: {what}"
        time.sleep(0.1)


def test_the_memory_of_a_child_is_its_own() -> None:
    # Linux counts what the parent held when it started the child: these tests hold much more than a benchmark.
    program = (
        "import sys\n"
        "from bench.child import run\n"
        f"for code in ('bytearray(b\"1\") * {200 * MIB}', ''):\n"
        "    print(run([sys.executable, '-c', code], limit_seconds=60).peak_memory_bytes)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    large, small = map(int, done.stdout.split())
    assert small < 100 * MIB < 200 * MIB < large


def test_the_time_of_the_processor_counts_what_a_child_started_and_not_what_it_slept() -> None:
    work = "import time\nwhile time.process_time() < 0.6: pass"
    code = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {work!r}], check=True); time.sleep(1)"
    ended = run([sys.executable, "-c", code], limit_seconds=60)
    assert 0.6 <= ended.cpu_seconds < 1.5
    assert ended.seconds > 1.5


def test_too_little_taken_away_and_wrong_answers_are_failures() -> None:
    assert reason_of("prune", share=0.31, error=1e-6) == ""
    assert "20% of the parameters went" in reason_of("prune", share=0.2, error=1e-6)
    assert "wrong by 0.01" in reason_of("factorize", share=0.3, error=0.01)
    assert reason_of("int8", share=0.0, error=0.01) == ""
    assert "wrong by nan" in reason_of("int8", share=0.0, error=float("nan"))


def test_rows_are_kept_and_a_half_written_one_is_walked_again(tmp_path: Path) -> None:
    file = tmp_path / "build" / "rows.jsonl"
    assert read(file, Outcome) == []
    append(file, outcome(technique="int8"))
    file.write_text(file.read_text() + '\n{"model": "torchvision/two", "tech')
    append(file, outcome())
    assert read(file, Outcome) == [outcome(technique="int8"), outcome()]


def test_one_of_each_family_comes_first_the_smallest_and_no_toy() -> None:
    given = [
        Subject("timm/large", "resnet", 9), Subject("timm/test_resnet", "resnet", 1),
        Subject("timm/small", "resnet", 2), Subject("timm/other", "vit", 5),
    ]  # fmt: skip
    ordered = in_rounds(given)
    assert [one.name for one in ordered] == ["timm/small", "timm/other", "timm/large", "timm/test_resnet"]
    assert firsts(ordered) == {"timm/small", "timm/other"}


def test_the_page_tells_shares_goals_reasons_and_what_was_not_walked(tmp_path: Path) -> None:
    rows = [
        outcome(), outcome("torchvision/two", reason="a | b\nsecond line"), outcome(technique="int8"),
        replace(outcome(technique="latency"), ratio=1.2, low=1.1, high=1.3),
        replace(outcome("torchvision/two", technique="latency", commit="def"), ratio=1.0, low=0.9, high=1.1),
    ]  # fmt: skip
    listed = [
        Subject("torchvision/one", "resnet"), Subject("torchvision/more", "resnet"), Subject("torchvision/two", "vit"),
        Subject("timm/never", "swin"),
    ]  # fmt: skip
    assert share_passed(rows, "prune") == 0.5
    assert share_passed(rows, "factorize") == 0
    page = tmp_path / "benchmarks.md"
    put_between_markers(page, "bench-breadth", lines(rows, listed))
    text = page.read_text()
    assert "2 of 4 models were walked" in text
    assert "abc 4, def 1" in text
    assert "| prune | 1 of 2 | 50.0% | 95%: missed | 2 |" in text
    assert "| int8 | 1 of 1 | 100.0% | 95%: met | 2 |" in text
    assert "slower for 50% (1)" in text
    assert "| resnet | 1 of 2 | 1 of 1 | 1 of 1 | 1.20 (1.10 to 1.30), one, side 64 |" in text
    assert "no model was walked: swin (1)" in text
    assert r"| torchvision/two | prune | a \| b second line |" in text


@pytest.mark.parametrize("text", ["3/2", "0/2", "1", "a/b", "1/0"])
def test_a_part_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected I/N with I from 1 to N"):
        part(text)


def test_parts_make_the_whole() -> None:
    models = [f"model {number}" for number in range(7)]
    taken = [in_part(models, part(f"{number}/3")) for number in (1, 2, 3)]
    assert sorted(one for some in taken for one in some) == models


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "technique"),
    [
        ("torchvision/mobilenet_v3_small", "factorize"),
        ("torchvision/mobilenet_v3_small", "prune"),
        ("transformers/ConvNeXt", "prune"),
        ("transformers/ConvNeXt", "factorize"),
        ("transformers/Swin", "factorize"),
        ("torchvision/mnasnet0_5", "int8"),
        ("transformers/ViT", "int8"),
        ("transformers/BERT", "int8"),
        ("transformers/MiniLM", "factorize"),
        ("transformers/DistilBERT", "prune"),
    ],
)
def test_a_small_row_passes(model: str, technique: str, tmp_path: Path) -> None:
    from bench.breadth.made import lay_out  # noqa: PLC0415 — torch, for these rows only
    from bench.breadth.row import carry_out  # noqa: PLC0415
    from bench.breadth.walk import Limits, reload  # noqa: PLC0415

    folder = tmp_path / "work"
    folder.mkdir()
    lay_out(model, folder)
    share = carry_out(model, technique, folder)
    reloaded = reload(technique, folder, Limits(seconds=60, memory_bytes=4096 * MIB))
    assert reloaded.code == 0, reloaded.output
    assert reason_of(technique, share, json.loads(reloaded.output)["error"]) == ""
