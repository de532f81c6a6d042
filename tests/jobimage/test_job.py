"""The job image as its pods run it: processes of their own, killed and started again."""

import ast
import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.jobimage.claims import DISTILL, INT8, PRUNE, Claims, end, run, start

from plimsoll_api.model import digest_of
from plimsoll_api.names import REQUEST_VARIABLE
from plimsoll_api.report import MAX_SUMMARY_BYTES, REPORT_MARK, Outcome, Report, Summary
from plimsoll_job.ending import run_to_end, summary_of
from plimsoll_job.errors import TransientError, UserError


def steps(epochs: int) -> list[dict[str, Any]]:
    return [PRUNE, {"distill": {**DISTILL["distill"], "epochs": epochs}}, INT8]


LONG = 5_000
#: Enough that a pod is killed between two of them.
SHORT = 200


def wait_for(claims: Claims, kept: str) -> Path:
    """Return the path in the work directory once it is there."""
    deadline = time.monotonic() + 300
    while not (found := list((claims.directory / "out" / "wine").glob(f"work/*/{kept}"))):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found[0]


def epochs_told(log: str) -> list[int]:
    return [int(number) for number in re.findall(r'"message":"epoch (\d+)/', log)]


@pytest.mark.slow
def test_two_fresh_processes_give_the_same_artifact_even_when_one_is_killed_between_epochs(
    claims: Claims, wine_source: Path, tmp_path: Path
) -> None:
    disturbed = Claims.copy_of(wine_source, tmp_path / "disturbed")
    killed = start(disturbed, "compress", disturbed.plan(steps(SHORT)), "killed")
    epoch = int(wait_for(disturbed, "step-01-training/epoch-*").name.removeprefix("epoch-"))
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert epoch < SHORT
    undisturbed = start(claims, "compress", claims.plan(steps(SHORT)))
    again = run(disturbed, "compress", disturbed.plan(steps(SHORT)), "again")
    first = end(claims, undisturbed, "compress")
    assert first.code == again.code == 0
    assert (first.summary.baseline, first.summary.candidate) == (again.summary.baseline, again.summary.candidate)
    assert first.summary.peak_memory_bytes is not None
    assert first.summary.peak_memory_bytes > 100_000_000
    assert '"stage":"prune"' in first.log
    assert '"stage":"prune"' not in again.log
    assert min(epochs_told(first.log)) == 1
    assert min(epochs_told(again.log)) > epoch
    left = next((disturbed.directory / "out").glob("wine/work/*"))
    assert {path.name for path in left.iterdir()} == {"done.json", "inputs.json", "peak-memory-0.json"}

    request = claims.request(first.summary.baseline, first.summary.candidate)  # type: ignore[arg-type]
    measured = run(claims, "evaluate", request)
    assert measured.code == 0, measured.log
    mark, _, content = measured.log.splitlines()[-1].partition(" ")
    assert mark == REPORT_MARK
    assert digest_of(content.encode()) == measured.summary.report_digest
    report = Report.model_validate_json(content)
    assert report.flips is not None
    assert report.flips.samples == 88

    printed = subprocess.run(
        [sys.executable, "-m", "plimsoll_job", "print-report", "--claims", str(claims.directory),
         "--uri", str(measured.summary.report_uri), "--digest", str(measured.summary.report_digest)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert printed.stdout == f"{REPORT_MARK} {content}\n"


@pytest.mark.slow
def test_sigterm_ends_a_pod_promptly_as_something_to_try_again(claims: Claims) -> None:
    pod = start(claims, "compress", claims.plan(steps(LONG)))
    wait_for(claims, "step-00")
    began = time.monotonic()
    pod.send_signal(signal.SIGTERM)
    ended = end(claims, pod, "compress")
    assert time.monotonic() - began < 10
    assert ended.code == 75
    assert list((claims.directory / "out" / "wine").glob("work/*/peak-memory-0.json"))
    assert (ended.summary.outcome, ended.summary.reason) == (Outcome.TRY_AGAIN, "Stopped")


def test_evaluate_never_imports_torch(claims: Claims, tmp_path: Path) -> None:
    request = claims.request(
        {"uri": "pvc://out/a", "digest": "sha256:" + "0" * 64, "sizeBytes": 1},  # type: ignore[arg-type]
        {"uri": "pvc://out/b", "digest": "sha256:" + "0" * 64, "sizeBytes": 1},  # type: ignore[arg-type]
    )
    program = (
        "import sys\n"
        "from plimsoll_job.__main__ import main\n"
        f"sys.argv = ['plimsoll_job', 'evaluate', '--claims', {str(claims.directory)!r}]\n"
        "code = main()\n"
        "import plimsoll_job.evaluate.flow\n"
        "print(code, sorted(set(sys.modules) & {'torch', 'sklearn', 'plimsoll_job.compress'}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env=os.environ | {REQUEST_VARIABLE: request.canonical_json().decode()},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "64 []"
    assert "there is no file pvc://out/a/manifest.json" in done.stderr


def test_compress_imports_the_packages_of_other_models_only_for_them() -> None:
    program = (
        "import sys, plimsoll_job.compress\n"
        "others = {'timm', 'torchvision', 'transformers', 'datasets', 'torchao', 'sklearn', 'sympy'}\n"
        "print(sorted(set(sys.modules) & others))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("document", ["", "{}", "[1", '{"schemaVersion": "v9"}'])
def test_a_plan_that_is_none_is_the_requests_fault(tmp_path: Path, document: str) -> None:
    (tmp_path / "plan.json").write_text(document)
    done = subprocess.run(
        [sys.executable, "-m", "plimsoll_job", "compress", "--plan", str(tmp_path / "plan.json"),
         "--termination-file", str(tmp_path / "end")],
        check=False, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 64
    assert '"reason":"NotUnderstood"' in (tmp_path / "end").read_text()


def raising(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "outcome", "reason"),
    [
        (UserError("spec.x: wrong"), 64, "RequestWrong", "RequestWrong"),
        (TransientError("full", reason="StoreUnwritable"), 75, "TryAgain", "StoreUnwritable"),
        (KeyError("bug"), 70, "InternalError", "InternalError"),
        (MemoryError(), 75, "TryAgain", "OutOfMemory"),
        (OSError(errno.ENOSPC, "full"), 75, "TryAgain", "StoreUnreadable"),
    ],
)
def test_exit_codes_say_who_must_act(tmp_path: Path, error: Exception, code: int, outcome: str, reason: str) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert run_to_end(lambda: raising(error), tmp_path / "end") == code  # type: ignore[arg-type,return-value]
    finally:
        signal.signal(signal.SIGTERM, before)
    text = (tmp_path / "end").read_text()
    assert f'"outcome":"{outcome}"' in text
    assert f'"reason":"{reason}"' in text


def test_a_stop_is_never_taken_for_an_error_of_the_request(tmp_path: Path) -> None:
    def work() -> Summary:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except Exception as error:
            raise UserError(f"the factory failed: {error}") from error
        raise AssertionError("the signal did not arrive")

    before = signal.getsignal(signal.SIGTERM)
    try:
        assert run_to_end(work, tmp_path / "end") == 75
    finally:
        signal.signal(signal.SIGTERM, before)
    assert '"reason":"Stopped"' in (tmp_path / "end").read_text()


def test_long_messages_fit_a_termination_message() -> None:
    for letter in ("a", "\u20ac", "\x00", '"'):
        summary = summary_of(Outcome.TRY_AGAIN, "Stopped", letter * 5_000)
        assert len(summary.message) <= 1_500
    assert len(summary_of(Outcome.TRY_AGAIN, "Stopped", "a" * 5_000).canonical_json()) < MAX_SUMMARY_BYTES


def test_every_process_that_is_started_ends_with_the_one_that_started_it() -> None:
    started = []
    for folder in ("jobimage", "cli"):
        for file in (Path(__file__).parents[2] / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("subprocess.run", "subprocess.Popen"):
                    started.append((file.name, any(one.arg is None for one in node.keywords)))
    # The keywords without a name are those of child_arguments.
    assert sorted(started) == [("child.py", True), ("launch.py", True), ("stage.py", True)]
