"""The way of one model, from an empty namespace to a rollback.

`make demo` shows it and the end-to-end test asserts it: each step does what a person would do with kubectl and returns
its claims, and a claim says whether it holds and what was observed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster import Cluster
from tests.e2e.claims import Claim, end_of, is_reevaluated, parse_time, part, points_at, ratio, says
from tests.e2e.helm import helm, image_values
from tests.e2e.kube import Kube, NotSoError, Object, ask_until, condition
from tests.e2e.prometheus import Prometheus

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "plimsoll"
EXAMPLE = ROOT / "examples" / "digits"
SYSTEM = "plimsoll-system"
HELM_RELEASE = "plimsoll"

GOOD, TOO_MUCH, RELEASE, SERVER = "digits-cnn", "digits-too-much", "digits", "digits-server"
JOB, RELEASES, REVISIONS = "compressionjobs.plimsoll.dev", "modelreleases.plimsoll.dev", "modelrevisions.plimsoll.dev"
#: Far more than a job takes on a quiet machine.
JOB_SECONDS = 480
#: A kubelet writes a changed ConfigMap into a volume within its sync period, a minute by default.
FOLLOW_SECONDS = 90

Tell = Callable[[str], None]


class Way:
    """The steps, in order; each may rely on those before it."""

    def __init__(self, cluster: Cluster, tell: Tell, namespace: str) -> None:
        self.cluster = cluster
        self.tell = tell
        self.kube = Kube(cluster, namespace)
        self.system = Kube(cluster, SYSTEM)

    # --- before the first step -------------------------------------------------------------------------------------

    def start_afresh(self) -> None:
        """Delete what an earlier run left in the namespace."""
        if self.kube.get("namespace", self.kube.namespace):
            self.tell(f"$ kubectl delete namespace {self.kube.namespace}   # of an earlier run")
            self.cluster.kubectl("delete", "namespace", self.kube.namespace, "--timeout=120s")

    def install(self) -> list[Claim]:
        """Make a namespace that admits restricted pods only, begin to train there, and install the operator by Helm."""
        for namespace in (SYSTEM, self.kube.namespace):
            self._restricted_namespace(namespace)
        # It needs no operator, so it runs while Helm waits.
        self._apply("storage.yaml", "network.yaml", "prepare.yaml")
        self.tell(f"$ helm install {HELM_RELEASE} charts/plimsoll --namespace {SYSTEM} --create-namespace --wait")
        was_there = bool(self.system.get("deployment", HELM_RELEASE))
        helm(self.cluster, "upgrade", "--install", HELM_RELEASE, str(CHART), "--namespace", SYSTEM,
             "--wait", "--timeout", "3m", *image_values())  # fmt: skip
        if was_there:  # its image may be another one now, under the same tag
            self.system.run("rollout", "restart", f"deployment/{HELM_RELEASE}")
        self.system.run("rollout", "status", f"deployment/{HELM_RELEASE}", "--timeout=120s")
        deployment = self.system.get("deployment", HELM_RELEASE)
        ready = deployment.get("status", {}).get("readyReplicas", 0)
        tested = helm(self.cluster, "test", HELM_RELEASE, "--namespace", SYSTEM, "--timeout", "1m")
        return [
            Claim("the operator runs, installed by Helm", ready == 1, f"{ready} ready"),
            Claim("helm test passes", "Succeeded" in tested, "Succeeded" if "Succeeded" in tested else tested[-300:]),
        ]

    def prepare(self) -> list[Claim]:
        """Start the server that will follow the release, and wait for the model that is to be compressed."""
        self._apply("release.yaml", "server.yaml")
        self.tell("a batch Job trains the model that is to be compressed")
        done = self.kube.wait("job", "digits-prepare", lambda job: bool(end_of(job)), seconds=JOB_SECONDS)
        said = self.kube.run("logs", "job/digits-prepare", "--tail=20").strip()
        for line in said.splitlines():
            self.tell(f"  {line}")
        return [Claim("the model is trained in the cluster", end_of(done) == "Complete", said.splitlines()[-1])]

    # --- the four steps of the demo --------------------------------------------------------------------------------

    def release_a_good_one(self) -> list[Claim]:
        """Compress, prove, release: the job passes its gate and its model serves."""
        self._apply("job.yaml")
        job = self.watch_job(GOOD)
        status = job["status"]
        summary = status.get("summary", {})
        size, latency, accuracy = (summary.get(k, {}) for k in ("size", "latencyP50", "accuracy"))
        smaller = ratio(size.get("baseline"), size.get("candidate"))
        slower = ratio(latency.get("candidate"), latency.get("baseline"))
        checks = {check["name"]: check for check in status.get("checks", [])}
        proof: Object = next((c for name, c in checks.items() if name.startswith("accuracy")), {})
        claims = [
            Claim("the job passes its gate", status.get("verdict") == "Pass", str(status.get("verdict"))),
            Claim(
                "the model was at least 97% accurate on the held-out half",
                float(accuracy.get("baseline", 0)) >= 0.97,
                f"{float(accuracy.get('baseline', 0)):.2%}",
            ),
            Claim(
                "its accuracy is non-inferior within 2 points at 95%",
                proof.get("verdict") == "Pass",
                str(proof.get("message")),
            ),
            Claim("its file is at least 20 times smaller", smaller >= 20, f"{smaller:.1f} times smaller"),
            Claim("its median latency at batch 1 is not higher", 0 < slower <= 1, f"{slower:.2f} of the baseline's"),
        ]
        release = self._release_at(2)
        claims.append(points_at(release, 2, "the release points at it"))
        claims.append(self._serves(2, "the server serves it"))
        return claims

    def reject_a_bad_one(self) -> list[Claim]:
        """A job that prunes far too much fails its gate; the release does not move."""
        self._apply("job-too-much.yaml")
        status = self.watch_job(TOO_MUCH)["status"]
        failed = [check for check in status.get("checks", []) if check["verdict"] == "Fail"]
        why = failed[0]["message"] if failed else "no check failed"
        described = self.kube.run("describe", JOB, TOO_MUCH)
        self.tell(f"$ kubectl describe compressionjob {TOO_MUCH}")
        for line in part(described, "Checks:", 12):
            self.tell(f"  {line}")
        release = self.kube.get(RELEASES, RELEASE)
        return [
            Claim("the gate rejects it", status.get("verdict") == "Fail", str(status.get("phase"))),
            Claim("kubectl describe says why", says(described, why), why),
            points_at(release, 2, "the release still points at the good revision"),
            self._serves(2, "the server still serves it"),
        ]

    def roll_back(self) -> list[Claim]:
        """The current revision fails on new data; the last good one serves again."""
        self._apply("reevaluate.yaml")
        release = self.kube.wait(RELEASES, RELEASE, is_reevaluated, seconds=JOB_SECONDS, pause=0.2)
        status = release["status"]
        reevaluation = status["reevaluation"]
        for check in reevaluation.get("checks", []):
            self.tell(f"  {check['verdict']}: {check['message']}")
        self.tell(f"  {condition(release, 'RolledBack').get('message', '')}")
        took = self._seconds_from_report_to_rollback(status)
        rejected = [r for r in status.get("rejected", []) if r["revision"] == 2]
        events = self.kube.run("get", "events", "--field-selector", f"involvedObject.name={RELEASE}", "-o", "wide")
        return [
            Claim("the re-evaluation fails", reevaluation["verdict"] == "Fail", str(reevaluation.get("message"))),
            points_at(release, 1, "the release is back at the last good revision"),
            Claim("that took at most 10 seconds from the report", took is not None and took <= 10, f"{took} s"),
            Claim("the failed artifact is remembered", len(rejected) == 1, str([r["reason"] for r in rejected])),
            Claim("an Event says so", "RolledBack" in events, "RolledBack" if "RolledBack" in events else events),
            self._serves(1, "the server serves the old model again"),
        ]

    def read_metrics(self, prometheus: Prometheus) -> list[Claim]:
        """What happened stands in Prometheus."""
        mine = f'namespace="{self.kube.namespace}"'
        claims = []
        for text, query, wanted in (
            ("Prometheus counts the verdict Pass", 'plimsoll_verdicts_total{verdict="Pass"}', 1),
            (
                "Prometheus counts the verdict Fail of a job and of a re-evaluation",
                'plimsoll_verdicts_total{verdict="Fail"}',
                2,
            ),
            ("Prometheus counts the rollback", f"plimsoll_rollbacks_total{{{mine}}}", 1),
            ("Prometheus shows what serves", f"plimsoll_release_revision{{{mine}}}", 1),
            ("Prometheus shows the artifact's size", f'plimsoll_model_size_bytes{{{mine},model="candidate"}}', 1),
        ):
            try:
                total = prometheus.wait(f"sum({query})", wanted)
                claims.append(Claim(text, holds=True, observed=f"{query} = {total:g}"))
            except NotSoError as error:
                claims.append(Claim(text, holds=False, observed=str(error)))
        return claims

    # --- what the steps share --------------------------------------------------------------------------------------

    def watch_job(self, name: str) -> Object:
        """Tell a job's progress as it happens; return the job when it has ended."""
        told = ""

        def ended(job: Object) -> bool:
            nonlocal told
            status = job.get("status", {})
            progress = status.get("progress", {})
            done = f"{progress['percent']:>3}%" if progress else ""
            words = (f"{status.get('phase', 'Pending'):<11}", done, progress.get("stage"), progress.get("message"))
            line = "  " + "  ".join(filter(None, words))
            if line != told:
                self.tell(line)
                told = line
            return any(condition(job, kind).get("status") == "True" for kind in ("Complete", "Failed"))

        return self.kube.wait(JOB, name, ended, seconds=JOB_SECONDS)

    def _apply(self, *names: str) -> None:
        self.tell("$ kubectl apply " + " ".join(f"-f examples/digits/{name}" for name in names))
        self.kube.apply(*(EXAMPLE / name for name in names))

    def _restricted_namespace(self, name: str) -> None:
        if not self.kube.get("namespace", name):
            self.cluster.kubectl("create", "namespace", name)
        enforce = "pod-security.kubernetes.io/enforce=restricted"
        self.cluster.kubectl("label", "--overwrite", "namespace", name, enforce)

    def _release_at(self, revision: int) -> Object:
        def there(release: Object) -> bool:
            return bool(release.get("status", {}).get("currentRevision") == revision)

        try:
            return self.kube.wait(RELEASES, RELEASE, there, seconds=20)
        except NotSoError:
            return self.kube.get(RELEASES, RELEASE)

    def _serves(self, revision: int, text: str) -> Claim:
        """Ask the server over HTTP, until it serves the revision with the digest that the revision has."""
        digest = self.kube.get(REVISIONS, f"{RELEASE}-{revision}").get("spec", {}).get("artifact", {}).get("digest")
        began = time.monotonic()
        try:
            with self.kube.reach(SERVER, 80) as address:
                answer = ask_until(address, "/", lambda a: a.get("revision") == str(revision), seconds=FOLLOW_SECONDS)
        except NotSoError as error:
            return Claim(text, holds=False, observed=str(error))
        seen = f"revision {answer['revision']}, {answer['digest'][:19]}…, after {time.monotonic() - began:.0f} s"
        return Claim(text, answer["digest"] == digest, seen)

    def _seconds_from_report_to_rollback(self, status: Object) -> float | None:
        """Return the time from the end of the pod that printed the report to the rollback (whole seconds)."""
        pods = self.kube.list("pods", f"plimsoll.dev/release={RELEASE},plimsoll.dev/stage=reevaluate")
        ends = [
            state["state"]["terminated"]["finishedAt"]
            for pod in pods
            for state in pod["status"].get("containerStatuses", [])
            if "terminated" in state["state"]
        ]
        if not ends or "lastRollbackTime" not in status:
            return None
        return (parse_time(status["lastRollbackTime"]) - parse_time(max(ends))).total_seconds()
