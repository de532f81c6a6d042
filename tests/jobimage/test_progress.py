"""Progress is told in percents of the whole, and not too often."""

from plimsoll_api.report import PROGRESS_MARK, Progress
from plimsoll_job.progress import Reporter, print_progress


def test_parts_of_parts_tell_percents_of_the_whole() -> None:
    heard: list[Progress] = []
    reporter = Reporter(emit=heard.append).part(0.5, 1.0).part(0.0, 0.5)
    reporter.report("prune", 0)
    reporter.report("prune", 1, "done")
    assert [(one.stage, one.percent, one.message) for one in heard] == [("prune", 50, ""), ("prune", 75, "done")]


def test_lines_that_follow_too_fast_are_left_out_but_never_the_ends() -> None:
    heard: list[Progress] = []
    now = [0.0]
    reporter = Reporter(emit=heard.append, clock=lambda: now[0])
    for step in range(101):
        now[0] += 0.1
        reporter.report("distill", step / 100)
    assert [heard[0].percent, heard[-1].percent] == [0, 100]
    assert 15 < len(heard) < 25


def test_a_line_is_the_mark_and_json(capfdbinary: object) -> None:
    print_progress(Progress(stage="load", percent=3, message="größer"))
    out, _ = capfdbinary.readouterr()  # type: ignore[attr-defined]
    mark, _, content = out.decode().rstrip("\n").partition(" ")
    assert mark == PROGRESS_MARK
    assert Progress.model_validate_json(content).message == "größer"
