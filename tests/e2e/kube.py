"""Asking a cluster by kubectl, and reaching its services from here."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster import Cluster, tool

Object = dict[str, Any]


class NotSoError(Exception):
    """Something that the way waits for did not come in time."""


class Kube:
    """One namespace of one cluster, through kubectl alone, as a person would."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl in the namespace and return what it prints."""
        return self.cluster.kubectl("--namespace", self.namespace, *arguments, stdin=stdin)

    def apply(self, *manifests: Path) -> str:
        """Apply the manifests as a person would."""
        return self.run("apply", *(part for manifest in manifests for part in ("-f", str(manifest))))

    def get(self, kind: str, name: str) -> Object:
        """Return one object; empty when there is none."""
        text = self.run("get", kind, name, "--ignore-not-found", "-o", "json")
        return dict(json.loads(text)) if text.strip() else {}

    def list(self, kind: str, selector: str = "") -> list[Object]:
        """Return the objects of a kind that the label selector matches."""
        return list(json.loads(self.run("get", kind, "-l", selector, "-o", "json"))["items"])

    def wait(
        self, kind: str, name: str, until: Callable[[Object], bool], *, seconds: float, pause: float = 0.5
    ) -> Object:
        """Poll one object until it is as wanted and return it; NotSoError after so many seconds."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.get(kind, name)
            if found and until(found):
                return found
            if time.monotonic() > deadline:
                state = json.dumps(found.get("status", {}), indent=1)[:3000]
                raise NotSoError(f"{kind} {name} after {seconds:.0f} s: {state}")
            time.sleep(pause)

    def wait_gone(self, kind: str, selector: str, *, seconds: float) -> None:
        """Poll until nothing of the kind is left; NotSoError after so many seconds."""
        deadline = time.monotonic() + seconds
        while left := self.list(kind, selector):
            if time.monotonic() > deadline:
                raise NotSoError(f"{kind} left after {seconds:.0f} s: {[o['metadata']['name'] for o in left]}")
            time.sleep(0.5)

    @contextmanager
    def reach(self, service: str, port: int) -> Iterator[str]:
        """Yield host:port that reaches the service from this machine: its own address, or a port-forward."""
        if self._routed():
            yield f"{self.get('service', service)['spec']['clusterIP']}:{port}"
            return
        forward = subprocess.Popen(
            [str(tool("kubectl")), "--kubeconfig", str(self.cluster.kubeconfig), "--namespace", self.namespace,
             "port-forward", f"service/{service}", f":{port}"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        try:
            assert forward.stdout is not None
            line = forward.stdout.readline()
            if "Forwarding from 127.0.0.1:" not in line:
                raise NotSoError(f"no port-forward to the service {service}: {line!r}")
            yield "127.0.0.1:" + line.split("127.0.0.1:")[1].split(" ")[0]
        finally:
            forward.terminate()
            forward.wait()

    def _routed(self) -> bool:
        """Say whether this machine has a way to service addresses; the API server's always answers."""
        listed = json.loads(self.cluster.kubectl("-n", "default", "get", "service", "kubernetes", "-o", "json"))
        return _connects(listed["spec"]["clusterIP"], 443)


def _connects(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False


def ask(address: str, path: str, body: Object | None = None) -> Object:
    """Send one HTTP request and return the JSON answer; NotSoError when there is none."""
    content = json.dumps(body).encode() if body is not None else None
    try:
        with urllib.request.urlopen(f"http://{address}{path}", content, timeout=10) as answer:
            return dict(json.loads(answer.read()))
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise NotSoError(f"http://{address}{path}: {error}") from error


def ask_until(address: str, path: str, until: Callable[[Object], bool], *, seconds: float) -> Object:
    """Ask again until the answer is as wanted and return it; NotSoError after so many seconds."""
    deadline = time.monotonic() + seconds
    answer: Object | str = {}
    while time.monotonic() < deadline:
        try:
            answer = ask(address, path)
            if until(answer):
                return answer
        except NotSoError as error:
            answer = str(error)
        time.sleep(0.5)
    raise NotSoError(f"http://{address}{path} after {seconds:.0f} s: {answer}")


def condition(of: Object, kind: str) -> Object:
    """Return one condition of an object; empty when it has none of that type."""
    conditions = of.get("status", {}).get("conditions", [])
    return next((dict(c) for c in conditions if c["type"] == kind), {})
