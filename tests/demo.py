"""`make demo`: the whole way of one model on a real Kubernetes, told as it happens. `make demo-down` takes it down.

While the cluster is brought up (cold, its programs are built for many minutes), the same job runs without a cluster.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable

from tests.cluster import Cluster, ClusterError
from tests.e2e.claims import Claim
from tests.e2e.kube import NotSoError
from tests.e2e.prometheus import scraping
from tests.e2e.way import EXAMPLE, HELM_RELEASE, JOB, RELEASES, REVISIONS, ROOT, Way

WORK = ROOT / "build" / "demo"
_began = time.monotonic()


def main() -> int:
    """Show the way, or take down what it left; 0 when every claim held."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--down", action="store_true", help="take down what the demo left up")
    if parser.parse_args().down:
        return subprocess.run([sys.executable, "-m", "tests.cluster", "down"], cwd=ROOT, check=False).returncode
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    WORK.mkdir(parents=True, exist_ok=True)
    starting = Starting()
    failed = False
    try:
        failed |= not without_a_cluster()
        with_a_cluster = show(starting)
    except (NotSoError, ClusterError) as error:
        tell(paint(f"the demo stopped: {error}", "31"))
        return 1
    failed |= not with_a_cluster
    heading("done, and all that was claimed holds" if not failed else "done, but NOT all that was claimed holds")
    return int(failed)


class Starting:
    """The cluster, being brought up in the background; its log is told once it is waited for."""

    def __init__(self) -> None:
        self.log = WORK / "cluster.log"
        # Building politely, so that the job without a cluster has the processor; the cluster itself is not slowed down.
        build_then_up = 'nice -n 15 "$0" -m tests.cluster build && exec "$0" -m tests.cluster up'
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", build_then_up, sys.executable], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
            )

    def wait(self) -> Cluster:
        """Return the cluster when it is up, telling its log meanwhile."""
        with self.log.open() as log:
            while True:
                ended = self._process.poll() is not None
                for line in log:
                    tell(f"  {line.rstrip()}")
                if ended:
                    break
                time.sleep(0.5)
        if self._process.returncode:
            raise NotSoError(f"the cluster did not come up; {self.log} says why")
        with contextlib.redirect_stderr(io.StringIO()):  # it says again what the log said
            return Cluster.up(images=False)


def without_a_cluster() -> bool:
    """Run the first job on this machine alone, as `plimsoll run` does for anyone."""
    heading("First without a cluster: plimsoll run")
    plimsoll = [sys.executable, "-m", "plimsoll_cli"]
    models, data = WORK / "models", WORK / "data"
    mounts = ["--mount", f"models={models}", "--mount", f"data={data}"]
    train = [sys.executable, "-m", "plimsoll_job.examples.digits", str(models), str(data)]
    job = [*plimsoll, "run", str(EXAMPLE / "job.yaml"), *mounts, "--report", str(WORK / "report.json")]
    steps = [("train the model that is to be compressed", train), ("compress, evaluate and judge it", job)]
    for text, command in steps:
        shown = (
            ["plimsoll", *command[len(plimsoll) :]]
            if command[: len(plimsoll)] == plimsoll
            else ["python", *command[1:]]
        )
        tell(f"{text}\n$ {' '.join(shown).replace(f'{ROOT}/', '')}")
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"}, check=False)
        if done.returncode:
            tell(paint(f"that ended with {done.returncode}", "31"))
            return False
    return True


def show(starting: Starting) -> bool:
    """Show the way on the cluster; say whether every claim held."""
    heading("A real Kubernetes: containerd, kubelet, control plane, DNS, images")
    cluster = starting.wait()
    tell(f"  export KUBECONFIG={cluster.kubeconfig}")
    way = Way(cluster, tell, namespace="digits")
    way.start_afresh()
    held = [
        step("The operator, by Helm", way.install),
        step("A model, its data and a server", way.prepare),
    ]
    with way.system.reach(f"{HELM_RELEASE}-metrics", 8080) as target, scraping(target) as prometheus:
        held += [
            step("1. A job that passes is released", way.release_a_good_one),
            step("2. A job that prunes far too much is rejected", way.reject_a_bad_one),
            step("3. The current revision fails on new data and is rolled back", way.roll_back),
            step("4. Prometheus saw it all", lambda: way.read_metrics(prometheus)),
        ]
    heading("What stands in the cluster")
    for kind in (JOB, RELEASES, REVISIONS):
        tell(f"$ kubectl -n {way.kube.namespace} get {kind.partition('.')[0]}")
        tell(way.kube.run("get", kind))
    report = way.kube.get(JOB, "digits-cnn")["status"].get("report", {}).get("uri")
    tell(f"reports: {report} in the cluster, {WORK.relative_to(ROOT)}/report.json on this machine")
    tell("The cluster stays up. To look around: export KUBECONFIG=$(python -m tests.cluster kubeconfig)")
    tell("To take it down: make demo-down")
    return all(held)


def step(title: str, take: Callable[[], list[Claim]]) -> bool:
    """Take one step of the way and tell its claims; say whether all held."""
    heading(title)
    began = time.monotonic()
    claims = take()
    for claim in claims:
        mark = paint("✓", "32") if claim.holds else paint("✗", "31")
        tell(f"  {mark} {claim.text}: {claim.observed}")
    tell(f"  ({time.monotonic() - began:.0f} s)")
    return all(claim.holds for claim in claims)


def heading(text: str) -> None:
    """Print a heading with the time since the start."""
    print(f"\n{paint(f'[{time.monotonic() - _began:5.0f} s] {text}', '1')}")


def tell(text: str) -> None:
    """Print what happens."""
    print(text)


def paint(text: str, code: str) -> str:
    """Return the text in a terminal's colour; as it is where the output is no terminal."""
    return f"\033[{code}m{text}\033[0m" if sys.stdout.isatty() else text


if __name__ == "__main__":
    sys.exit(main())
