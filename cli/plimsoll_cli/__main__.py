"""The command line: `plimsoll <verb>`, also `kubectl plimsoll <verb>`."""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from pathlib import Path

from plimsoll_cli.exit_codes import EXIT_CODES_HELP


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    options = _parser().parse_args(arguments)
    if options.verb == "validate":
        from plimsoll_cli.validate import validate_files

        return validate_files(options.files)
    from plimsoll_cli.run import run_file

    return run_file(options.file, dict(options.mount), options.report)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="plimsoll", description="Make models lighter, and let them serve only when they are proved good."
    )
    parser.add_argument("--version", action="version", version=f"plimsoll {version('plimsoll')}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    validate = verbs.add_parser("validate", help="say all that is wrong with manifests, at once")
    validate.add_argument("files", nargs="+", type=Path, metavar="FILE")
    run = verbs.add_parser(
        "run",
        help="carry out a CompressionJob on this machine, without a cluster",
        description="Compress and evaluate in two processes of their own, then judge by the job's gates.",
        epilog=EXIT_CODES_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("file", type=Path, metavar="JOB.YAML")
    run.add_argument(
        "--mount",
        action="append",
        default=[],
        type=_mount,
        metavar="CLAIM=DIR",
        help="the directory that stands in for a claim; once for each claim that the job names (default: none)",
    )
    run.add_argument(
        "--report",
        type=Path,
        default=Path("report.json"),
        metavar="FILE",
        help="where the report is written; one that lies there keeps its content under a number (default: %(default)s)",
    )
    return parser


def _mount(text: str) -> tuple[str, Path]:
    claim, separator, directory = text.partition("=")
    if not (claim and separator and directory):
        raise argparse.ArgumentTypeError(f"expected CLAIM=DIR, got {text!r}")
    path = Path(directory)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{directory} is not a directory; make it first: mkdir -p {directory}")
    return claim, path.resolve()


if __name__ == "__main__":
    sys.exit(main())
