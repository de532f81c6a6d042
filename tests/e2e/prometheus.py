"""A real Prometheus on this machine that scrapes the operator."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.binaries import install_debian
from tests.e2e.kube import NotSoError

CONFIG = """\
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
- job_name: plimsoll
  static_configs: [{{targets: ["{target}"]}}]
"""


class Prometheus:
    """Its query API."""

    def __init__(self, address: str) -> None:
        self.address = address

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and the value of every series that answers the query."""
        url = f"http://{self.address}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(url, timeout=10) as answer:
            result = json.loads(answer.read())["data"]["result"]
        return [(series["metric"], float(series["value"][1])) for series in result]

    def total(self, expression: str) -> float:
        """Return the sum of all series of the query; 0 when there is none."""
        return sum(value for _, value in self.query(expression))

    def wait(self, expression: str, at_least: float, *, seconds: float = 20) -> float:
        """Ask until the sum of the series reaches the number and return it; NotSoError after so many seconds."""
        deadline = time.monotonic() + seconds
        while True:
            total = self.total(expression)
            if total >= at_least:
                return total
            if time.monotonic() > deadline:
                raise NotSoError(f"{expression} is {total} after {seconds:.0f} s")
            time.sleep(0.5)


@contextmanager
def scraping(target: str) -> Iterator[Prometheus]:
    """Run Prometheus against one host:port, and stop it at the end."""
    install_debian({"prometheus": "prometheus"})
    program = str(shutil.which("prometheus"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with tempfile.TemporaryDirectory(prefix="plimsoll-prometheus-") as scratch:
        config = Path(scratch) / "prometheus.yml"
        config.write_text(CONFIG.format(target=target))
        with (Path(scratch) / "log").open("w") as log:
            process = subprocess.Popen(
                [program, f"--config.file={config}", f"--storage.tsdb.path={scratch}/data",
                 f"--web.listen-address={address}"],
                stdout=log, stderr=log,
            )  # fmt: skip
        try:
            prometheus = Prometheus(address)
            _wait_ready(prometheus, process, Path(scratch) / "log")
            yield prometheus
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_ready(prometheus: Prometheus, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            prometheus.query("up")
            return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotSoError(f"prometheus does not start: {log.read_text()[-2000:]}") from None
            time.sleep(0.2)
