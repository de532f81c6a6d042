"""What a person sees at the end of `plimsoll run`."""

from io import StringIO

from rich.console import Console
from tests.api.reports import DIGESTS, GATES, ratio, report

from plimsoll_api.gate import judge
from plimsoll_api.gates import Metric
from plimsoll_cli.display import Display


def step(technique: str, size: int, accuracy: float, latency: float) -> dict[str, object]:
    return {
        "technique": technique,
        "artifact_digest": DIGESTS["candidate"],
        "size_bytes": size,
        "parameters": size // 4,
        "nonzero_parameters": size // 4,
        "macs": size * 10,
        "accuracy": accuracy,
        "macro_f1": accuracy,
        "latency": ratio(Metric.LATENCY_P50, 1, latency, latency, latency),
    }


def record(technique: str, **told: object) -> dict[str, object]:
    counts = {f"{name}_{when}": 1 for name in ("parameters", "macs") for when in ("before", "after")}
    return {"technique": technique, "settings": {}, **counts, "nonzero_after": 1, **told}


def lineage(steps: list[dict[str, object]]) -> dict[str, object]:
    return {"source_digest": DIGESTS["baseline"], "architecture": "one", "steps": steps}


def test_each_step_has_a_line_with_what_it_did() -> None:
    shown = Console(file=StringIO(), width=200)
    measured = report(steps=[step("prune", 200_000, 0.5, 0.4), step("distill", 200_000, 0.975, 0.41)])
    Display("job", shown).result(measured, judge(measured, GATES))
    assert isinstance(shown.file, StringIO)
    lines = [" ".join(line.replace("│", " ").split()) for line in shown.file.getvalue().splitlines()]
    assert "prune 200,000 50,000 2,000,000 50% 0.4x" in lines
    assert "distill 200,000 50,000 2,000,000 97.5% 0.41x" in lines


def test_the_memory_of_both_stages_is_shown_where_it_was_measured() -> None:
    shown = Console(file=StringIO(), width=200)
    for peak in (None, 1_500_000_000):
        measured = report(compression_peak_memory_bytes=peak)
        Display("job", shown).result(measured, judge(measured, GATES))
    assert isinstance(shown.file, StringIO)
    told = [line for line in shown.file.getvalue().splitlines() if line.startswith("memory")]
    assert told == ["memory    evaluate 1 MiB at most", "memory    compress 1,431 MiB, evaluate 1 MiB at most"]


def test_notes_of_the_report_are_shown() -> None:
    shown = Console(file=StringIO(), width=60)
    note = "The candidate is slower than the baseline at batch size 1: its median latency is 2.20 times that of it."
    measured = report(notes=[note])
    Display("job", shown).result(measured, judge(measured, GATES))
    assert isinstance(shown.file, StringIO)
    assert note in shown.file.getvalue().splitlines()


def test_notes_of_the_steps_are_shown_with_their_technique() -> None:
    note = "Single weights were set to zero: the file and the latency stay as they are."
    measured = report(lineage=lineage([record("prune", notes=[note]), record("quantize")]))
    shown = Console(file=StringIO(), width=60)
    Display("job", shown).result(measured, judge(measured, GATES))
    assert isinstance(shown.file, StringIO)
    assert f"prune: {note}" in shown.file.getvalue().splitlines()


def test_what_a_step_left_is_shown_by_reasons_where_it_is_much() -> None:
    def left(layer: str, kind: str, share: float, reason: str) -> dict[str, object]:
        return {"layer": layer, "kind": kind, "share": share, "reason": reason}

    whole = [
        left("lstm", "LSTM", 0.5, "its units are unknown"),
        *(left(f"cell{number}", "GRUCell", 0.04, "it is called in a loop") for number in range(5)),
        left("head", "Linear", 0.04, "it is the last"),
    ]
    measured = report(lineage=lineage([record("prune", left=whole)]))
    shown = Console(file=StringIO(), width=60)
    Display("job", shown).result(measured, judge(measured, GATES))
    assert isinstance(shown.file, StringIO)
    assert [line for line in shown.file.getvalue().splitlines() if "bytes as they were" in line] == [
        "prune left 50% of the bytes as they were: lstm (LSTM): its units are unknown.",
        "prune left 20% of the bytes as they were: cell0, cell1, cell2 and 2 more (GRUCell): it is called in a loop.",
    ]
