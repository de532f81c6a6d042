"""python -m plimsoll_job compress | evaluate | print-report: what the pods of a job run."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from plimsoll_api.names import CLAIMS_DIRECTORY, PLAN_FILE, REQUEST_VARIABLE, TERMINATION_FILE
from plimsoll_api.plan import EvaluationRequest, Plan
from plimsoll_api.report import Outcome, Summary
from plimsoll_job.ending import run_to_end
from plimsoll_job.errors import TransientError, UserError
from plimsoll_job.gpu import gpu_names
from plimsoll_job.launch import run_under_torchrun
from plimsoll_job.load.store import Store
from plimsoll_job.memory import peak_memory_bytes, set_imports_aside
from plimsoll_job.progress import Reporter


def compress_verb(arguments: argparse.Namespace) -> Summary:
    """Read the plan and carry it out, in one process a GPU."""
    gpus = len(gpu_names())
    processes = arguments.processes or max(1, gpus)
    if gpus and processes > gpus:
        raise UserError(f"--processes: each trains on a GPU of its own, and this pod has {gpus}, not {processes}")
    if processes > 1 and "WORLD_SIZE" not in os.environ:
        return run_under_torchrun(processes, sys.argv[1:])
    plan = parse(Plan, read_text(arguments.plan), "plan")
    # Read when torch is loaded: threads that wait by spinning take the cores from whoever else works on the node, and
    # from each other: training beside one busy neighbour took ten times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # torch takes seconds to import, and the other verbs must not.
    from plimsoll_job.compress import compress, work_directory  # noqa: PLC0415
    from plimsoll_job.follow import follow  # noqa: PLC0415
    from plimsoll_job.ranks import Ranks, meeting  # noqa: PLC0415
    from plimsoll_job.work import Work  # noqa: PLC0415

    set_imports_aside()
    store = store_of(arguments)
    work = Work(work_directory(plan, store))
    ranks = Ranks.of_environment()
    with meeting(ranks):
        try:
            if ranks.rank > 0:
                summary = follow(plan, store, ranks)
            else:
                summary = compress(plan, store, Reporter())
                ranks.dismiss()
        except UserError:
            raise
        except BaseException:
            # Another pod goes on from here, and tells the most that any of them held.
            with contextlib.suppress(TransientError):
                work.keep_peak_memory(peak_memory_bytes(), ranks.rank)
            raise
        held_bytes = work.keep_peak_memory(peak_memory_bytes(), ranks.rank)
        return summary.model_copy(update={"peak_memory_bytes": ranks.total(held_bytes)})


def evaluate_verb(arguments: argparse.Namespace) -> Summary:
    """Read the request, measure, and print the report as the last line of the log."""
    text = read_text(arguments.request) if arguments.request else os.environ.get(REQUEST_VARIABLE, "")
    request = parse(EvaluationRequest, text, "request")
    from plimsoll_job.evaluate.flow import evaluate  # noqa: PLC0415
    from plimsoll_job.publish.report import print_report  # noqa: PLC0415

    summary, report = evaluate(request, store_of(arguments), Reporter())
    print_report(report)
    return summary


def print_report_verb(arguments: argparse.Namespace) -> Summary:
    """Print a stored report again."""
    from plimsoll_job.publish.report import print_report, read_report  # noqa: PLC0415

    print_report(read_report(arguments.uri, arguments.digest, store_of(arguments)))
    return Summary(
        outcome=Outcome.DONE,
        reason="Printed",
        message="the report was printed again",
        report_uri=arguments.uri,
        report_digest=arguments.digest,
    )


def parse(kind: Any, text: str, name: str) -> Any:
    """Return the value that the JSON holds; UserError when it is none of this kind."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise UserError(f"{name}: not of this version of the job image: {error}", reason="NotUnderstood") from error


def read_text(path: Path) -> str:
    """Return the text of the file; UserError when it cannot be read."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def store_of(arguments: argparse.Namespace) -> Store:
    """Return the store of the mounts that the command line names."""
    return Store(claims=arguments.claims, mounts=dict(arguments.mount))


def mount(text: str) -> tuple[str, Path]:
    """Parse claim=DIR."""
    claim, separator, directory = text.partition("=")
    if not (claim and separator and directory):
        raise argparse.ArgumentTypeError(f"expected claim=DIR, got {text!r}")
    return claim, Path(directory)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m plimsoll_job", description=__doc__)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--claims",
        type=Path,
        default=Path(CLAIMS_DIRECTORY),
        help="where claims are mounted, by name (default: %(default)s)",
    )
    common.add_argument(
        "--mount", type=mount, action="append", default=[], help="claim=DIR, a claim mounted elsewhere (default: none)"
    )
    common.add_argument(
        "--termination-file",
        type=Path,
        help=f"where the summary is written (default: {TERMINATION_FILE}, where there is one)",
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    verb = verbs.add_parser("compress", parents=[common], help="carry out a plan and publish baseline and candidate")
    verb.add_argument("--plan", type=Path, default=Path(PLAN_FILE), help="the plan's file (default: %(default)s)")
    verb.add_argument("--processes", type=int, help="how many train side by side; one a GPU when not given")
    verb.set_defaults(work=compress_verb)
    verb = verbs.add_parser("evaluate", parents=[common], help="measure a candidate against its baseline")
    verb.add_argument("--request", type=Path, help=f"the request's file; ${REQUEST_VARIABLE} when not given")
    verb.set_defaults(work=evaluate_verb)
    verb = verbs.add_parser("print-report", parents=[common], help="print a stored report again")
    verb.add_argument("--uri", required=True)
    verb.add_argument("--digest", required=True)
    verb.set_defaults(work=print_report_verb)
    return parser


def main() -> int:
    """Run the verb and return the exit code."""
    arguments = build_parser().parse_args()
    # Of the processes that torchrun starts, the first tells how the pod ended.
    first = os.environ.get("RANK", "0") == "0"
    return run_to_end(lambda: arguments.work(arguments), arguments.termination_file if first else Path(os.devnull))


def leave(code: int) -> NoReturn:
    """End the process with the code; where others work beside it, without taking the interpreter down first.

    Threads of torch.distributed outlive the process group; one that asks for the interpreter while it goes down aborts
    the process, and torchrun takes a pod whose work was done for failed.
    """
    if "WORLD_SIZE" not in os.environ:
        sys.exit(code)
    # Temporary directories go with what refers to them.
    gc.collect()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main())
