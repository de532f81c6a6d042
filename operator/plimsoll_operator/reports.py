"""The report as it comes through the log, believed only when its digest is the one of the summary."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from plimsoll_api.model import digest_of
from plimsoll_api.report import MAX_REPORT_BYTES, PROGRESS_MARK, REPORT_MARK, Progress, Report
from plimsoll_operator.cluster.client import Cluster
from plimsoll_operator.cluster.errors import NotFoundError, RefusedError
from plimsoll_operator.views import CONTAINER

#: Container runtimes split a line at 16 KiB and the API server counts the parts: a whole report, and what a library
#: might print after it.
REPORT_LINES = 2 * MAX_REPORT_BYTES // (16 * 1024) + 32
PROGRESS_LINES = 20


@dataclass(frozen=True, slots=True)
class ReportReading:
    """What came of reading a report: the report, or why there is none."""

    report: Report | None = None
    problem: str = ""


def find_report(log: str, digest: str) -> ReportReading:
    """Return the last report of the log, if its bytes have this digest.

    A runtime that splits long lines may leave the breaks in; canonical JSON has none of its own, so the parts are
    joined again, as many as give the digest.
    """
    mark = log.rfind(f"{REPORT_MARK} ")
    if mark < 0:
        return ReportReading(problem="the log holds no report")
    text = ""
    for part in log[mark + len(REPORT_MARK) + 1 :].split("\n"):
        text += part.rstrip("\r")
        if len(text) > 4 * MAX_REPORT_BYTES:
            break
        if part and digest_of(text.encode()) == digest:
            return _parse(text)
    return ReportReading(problem=f"the log's report does not have the digest {digest}")


async def read_report(cluster: Cluster, namespace: str, pod: str, digest: str) -> ReportReading:
    """Read the report from the end of the pod's log."""
    try:
        log = await cluster.log(namespace, pod, CONTAINER, REPORT_LINES)
    except (NotFoundError, RefusedError) as error:
        return ReportReading(problem=f"the log of pod {pod} cannot be read: {error}")
    return find_report(log, digest)


async def read_progress(cluster: Cluster, namespace: str, pod: str) -> Progress | None:
    """Return the last progress that the pod told, if the end of its log holds any."""
    try:
        log = await cluster.log(namespace, pod, CONTAINER, PROGRESS_LINES)
    except (NotFoundError, RefusedError):
        return None
    for line in reversed(log.splitlines()):
        if line.startswith(f"{PROGRESS_MARK} "):
            try:
                return Progress.model_validate_json(line.removeprefix(f"{PROGRESS_MARK} "))
            except ValidationError:
                return None
    return None


def _parse(text: str) -> ReportReading:
    try:
        return ReportReading(report=Report.model_validate_json(text))
    except ValidationError as error:
        return ReportReading(problem=f"the report is not of this operator's schema: {error.errors()[0]['msg']}")
