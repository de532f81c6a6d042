"""Reports in a store: reports/sha256-<digest>.json."""

from __future__ import annotations

import sys

from plimsoll_api.model import digest_of
from plimsoll_api.report import REPORT_MARK
from plimsoll_job.errors import UserError
from plimsoll_job.load.store import Store
from plimsoll_job.publish.files import write_file


def publish_report(content: bytes, output_uri: str, store: Store) -> str:
    """Write the report, and return its URI."""
    name = f"reports/{digest_of(content).replace(':', '-')}.json"
    write_file(store.locate(output_uri, "spec.output.uri") / name, content)
    return f"{output_uri}/{name}"


def read_report(uri: str, digest: str, store: Store) -> bytes:
    """Return the report's bytes; UserError when they are not those of the digest."""
    content = store.read(uri, "report")
    if digest_of(content) != digest:
        raise UserError(f"report: {uri} has the digest {digest_of(content)}, expected {digest}", reason="ReportDamaged")
    return content


def print_report(content: bytes) -> None:
    """Print the report as one log line, in one write: container runtimes split long lines, never mixed ones."""
    sys.stdout.buffer.write(REPORT_MARK.encode() + b" " + content + b"\n")
    sys.stdout.buffer.flush()
