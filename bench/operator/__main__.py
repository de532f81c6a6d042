"""The command: python -m bench.operator [--jobs N] [--peer naive|none]."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import aiohttp
import psutil
from bench.operator import audit, control_plane, figures, load, table, workload
from bench.operator.contender import NAIVE, PLIMSOLL, Contender, log_file, started
from bench.operator.control_plane import USER, ControlPlane
from bench.operator.usage import Meter, cpu_seconds
from tests.cluster.errors import ClusterError
from tests.cluster.locks import exclusive
from tests.cluster.progress import say

ROOT = Path(__file__).parents[2]
WARM_UP_JOBS = 3
LOG_LINES = 30
WARM_UP_SECONDS = 90
#: Several times what the slowest peer takes on an idle machine; then what has ended by now is reported.
SECONDS_PER_JOB = 0.6
LEAST_SECONDS = 120
#: The audit log is written in batches, at least one a second.
AUDIT_SECONDS = 2.5


def main() -> int:
    """Measure and print; return 0 when every job of every operator succeeded."""
    parser = argparse.ArgumentParser(prog="python -m bench.operator", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000, help="how many CompressionJobs are created at once")
    parser.add_argument("--peer", choices=("naive", "none", "only"), default="naive", help="what to compare with")
    parser.add_argument("--peer-first", action="store_true", help="measure the peer before ours: order may matter")
    parser.add_argument("--crds", type=Path, default=ROOT / "crds", help="the folder of the CRDs")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also put the table into this file")
    options = parser.parse_args()
    contenders = {"naive": [PLIMSOLL, NAIVE], "none": [PLIMSOLL], "only": [NAIVE]}[options.peer]
    measured: list[figures.Figures] = []
    with exclusive("bench-operator"):
        for contender in reversed(contenders) if options.peer_first else contenders:
            try:
                measured.append(measure(contender, options.jobs, options.crds))
            except (ClusterError, RuntimeError, OSError, aiohttp.ClientError) as error:
                print(f"error: {contender.name}: {error}", file=sys.stderr)
    measured.sort(key=lambda one: [contender.name for contender in contenders].index(one.name))
    if measured:
        print(table.text(measured))
    complete = len(measured) == len(contenders)
    if options.markdown and complete:
        table.write_markdown(measured, options.markdown)
    return 0 if complete and all(one.phases["Succeeded"] == one.jobs for one in measured) else 1


def measure(contender: Contender, jobs: int, crds: Path) -> figures.Figures:
    """Return the figures of one operator on a fresh control plane."""
    answers = workload.answers()
    with control_plane.running(answers, crds) as plane, started(contender, plane) as process:
        plane.make_namespace("warm-up")
        plane.make_namespace("bench")
        startup_seconds = _warm_up(contender, plane, process)
        startup_cpu_seconds = cpu_seconds(psutil.Process(process.pid))
        say(f"{contender.name}: ready; creating {jobs} jobs")
        kubeconfig, names = plane.instance.kubeconfig, [f"job-{number:05}" for number in range(jobs)]
        before = audit.count_all_writes(asyncio.run(load.read_metrics(kubeconfig)))
        limit_seconds = max(LEAST_SECONDS, SECONDS_PER_JOB * jobs)
        with Meter({contender.name: process.pid, **plane.pids()}) as meter:
            observed = _put_through(plane, process, "bench", names, limit_seconds)
        after = audit.count_all_writes(asyncio.run(load.read_metrics(kubeconfig)))
        time.sleep(AUDIT_SECONDS)
        writes = audit.read(plane.audit_log)
        if process.poll() is not None:
            say(f"{contender.name} ended by itself with {process.returncode}; see {log_file(contender, plane)}")
    say(f"{contender.name}: {len(observed.ended)} of {jobs} jobs ended; transitions {dict(observed.transitions)}")
    in_jobs = [write for write in writes if write.namespace == "bench"]
    elsewhere = [write for write in writes if write.namespace not in ("bench", "warm-up")]
    return figures.Figures(
        name=contender.name,
        jobs=jobs,
        ended=len(observed.ended),
        phases=Counter(observed.phases.values()),
        seconds=observed.seconds,
        startup_seconds=startup_seconds,
        startup_cpu_seconds=startup_cpu_seconds,
        usage=meter.usage[contender.name],
        writes=audit.writes_by_kind(in_jobs, USER),
        other_writes=audit.writes_by_kind(elsewhere, USER),
        all_writes=after - before,
        stretches=figures.stretches(audit.milestones(in_jobs, names), observed),
        control_plane={name: usage for name, usage in meter.usage.items() if name != contender.name},
    )


def _warm_up(contender: Contender, plane: ControlPlane, process: subprocess.Popen[bytes]) -> float:
    """Wait until a few jobs have gone through; return how long that took since the operator's start."""
    names = [f"warm-up-{number}" for number in range(WARM_UP_JOBS)]
    observed = _put_through(plane, process, "warm-up", names, WARM_UP_SECONDS)
    if len(observed.ended) < len(names):
        log = log_file(contender, plane).read_text(errors="replace").splitlines()[-LOG_LINES:]
        state = "ended" if process.poll() is not None else "runs, but a job does not end"
        raise RuntimeError("\n".join([f"{contender.name} {state}; phases: {observed.phases}; its log ends:", *log]))
    return time.time() - psutil.Process(process.pid).create_time()


def _put_through(
    plane: ControlPlane, process: subprocess.Popen[bytes], namespace: str, names: list[str], limit_seconds: float
) -> load.Observed:
    kubeconfig = plane.instance.kubeconfig
    return asyncio.run(
        load.put_through(
            kubeconfig, namespace, names, limit_seconds=limit_seconds, alive=lambda: process.poll() is None
        )
    )


if __name__ == "__main__":
    sys.exit(main())
