"""`plimsoll run`: the way of one job without a cluster: compress, evaluate, judge."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from itertools import count
from pathlib import Path

from plimsoll_api.gate import judge
from plimsoll_api.plan import EvaluationRequest, Plan
from plimsoll_api.report import EXIT_REQUEST_WRONG, EXIT_TRY_AGAIN, Outcome, Summary
from plimsoll_api.resources import CompressionJob
from plimsoll_api.spec import CompressionJobSpec
from plimsoll_cli.display import Display
from plimsoll_cli.exit_codes import BY_OUTCOME, BY_VERDICT
from plimsoll_cli.read import print_problems, read_file
from plimsoll_cli.stage import run_stage
from plimsoll_cli.stopping import Stopped, stoppable


def run_file(file: Path, mounts: Mapping[str, Path], report_file: Path) -> int:
    """Carry out the CompressionJob of the file and return the exit code of its verdict."""
    objects, problems = read_file(file)
    jobs = [item for item in objects if isinstance(item, CompressionJob)]
    if problems:
        print_problems(problems)
        return EXIT_REQUEST_WRONG
    if len(jobs) != 1:
        print(f"{file}: expected one CompressionJob, found {len(jobs)}", file=sys.stderr)
        return EXIT_REQUEST_WRONG
    missing = sorted(_claims(jobs[0].spec) - mounts.keys())
    if missing:
        flags = " ".join(f"--mount {claim}=DIR" for claim in missing)
        print(f"{file}: the job reads and writes claims that are not given; add {flags}", file=sys.stderr)
        return EXIT_REQUEST_WRONG
    unwritable = _unwritable(report_file)
    if unwritable is not None:
        print(f"--report {report_file} cannot be written: {unwritable}", file=sys.stderr)
        return EXIT_REQUEST_WRONG
    spec = jobs[0].spec
    with Display(jobs[0].metadata.name) as display:
        try:
            with stoppable():
                return _run(spec, mounts, report_file, display)
        except Stopped as stopped:
            display.error(
                f"stopped by {stopped}; finished steps are kept in {spec.output.uri}, and the same command goes on "
                "from them"
            )
            return stopped.exit_code


def _run(spec: CompressionJobSpec, mounts: Mapping[str, Path], report_file: Path, display: Display) -> int:
    with tempfile.TemporaryDirectory(prefix="plimsoll-") as directory:
        plan_file = Path(directory, "plan.json")
        plan_file.write_bytes(Plan.of(spec, image="").canonical_json())
        made = run_stage(
            ["compress", "--plan", str(plan_file)], mounts, display.part("compress", 0, 70), display.line
        ).summary
        if made.outcome is not Outcome.DONE or made.baseline is None or made.candidate is None:
            return _ended_early(made, display)
        request_file = Path(directory, "request.json")
        request = EvaluationRequest.of(spec, made.baseline, made.candidate, made.peak_memory_bytes)
        request_file.write_bytes(request.canonical_json())
        end = run_stage(
            ["evaluate", "--request", str(request_file)], mounts, display.part("evaluate", 70, 100), display.line
        )
    if end.summary.outcome is not Outcome.DONE:
        return _ended_early(end.summary, display)
    if end.report is None:
        display.error("the evaluation printed no report of the digest that it names")
        return EXIT_TRY_AGAIN
    judgement = judge(end.report, spec.gates, accept_baseline=spec.evaluation.accept_baseline)
    display.result(end.report, judgement)
    try:
        before = _set_aside(report_file)
        report_file.write_bytes(end.report.canonical_json())
    except OSError as error:
        display.error(f"--report {report_file} cannot be written: {error.strerror}")
        return EXIT_TRY_AGAIN
    display.written(report_file, before)
    return BY_VERDICT[judgement.verdict]


def _set_aside(file: Path) -> Path | None:
    """Rename what an earlier run left at the path, and return its new name; None where nothing was there."""
    if not file.is_file():
        return None
    aside = next(
        path for number in count(1) if not (path := file.with_name(f"{file.stem}.{number}{file.suffix}")).exists()
    )
    return file.rename(aside)


def _unwritable(file: Path) -> str | None:
    """Return why no file can be written there, None when one can; the folder is made.

    Told before anything runs: at the end it would cost the whole run.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    if file.is_dir():
        return "it is a directory"
    return None if os.access(file if file.exists() else file.parent, os.W_OK) else "it may not be written to"


def _ended_early(summary: Summary, display: Display) -> int:
    display.error(f"{summary.reason}: {summary.message}")
    return BY_OUTCOME.get(summary.outcome, EXIT_TRY_AGAIN)


def _claims(spec: CompressionJobSpec) -> set[str]:
    uris = [*spec.compress_uris, spec.data.evaluation.uri, spec.output.uri]
    return {uri.removeprefix("pvc://").partition("/")[0] for uri in uris}
