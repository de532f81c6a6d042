"""A docker daemon of our own: on a private socket, without a network of its own, stopped afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.binaries import install_debian
from tests.cluster.commands import run, succeeds
from tests.cluster.errors import ClusterError
from tests.cluster.locks import exclusive
from tests.cluster.progress import say, wait_until
from tests.cluster.runtime import unmount_below
from tests.cluster.settings import cache_directory

_RUNTIME = Path("/run/plimsoll-docker")
_FIXED = Path("/run/docker")  # dockerd makes this one wherever its other files are
# Debian's own client: it speaks BuildKit without the buildx plugin, which newer ones need.
_CLIENT = "/usr/bin/docker"


@dataclass(frozen=True)
class Docker:
    """Commands to the daemon while it runs."""

    socket: Path

    def run(self, *arguments: str | Path, stdin: bytes | None = None) -> str:
        """Run a docker command and return what it prints; raise ClusterError when it fails."""
        return run(_CLIENT, "-H", f"unix://{self.socket}", *arguments, stdin=stdin, environment=_environment())

    def has(self, image: str) -> bool:
        """Say whether there is an image of this name."""
        return succeeds(_CLIENT, "-H", f"unix://{self.socket}", "image", "inspect", image)

    def load_base(self, image: str, root: Path, environment: dict[str, str]) -> None:
        """Make the image `image` of the files below `root`, unless it is there."""
        if self.has(image):
            return
        say(f"loading {image}")
        changes = [part for key, value in environment.items() for part in ("-c", f"ENV {key}={value}")]
        with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as archive:
            command = [_CLIENT, "-H", f"unix://{self.socket}", "import", *changes, "-", image]
            loaded = subprocess.run(command, stdin=archive.stdout, capture_output=True, check=False)
        if loaded.returncode != 0 or archive.returncode != 0:
            raise ClusterError(f"docker import of {image}: {loaded.stderr.decode(errors='replace')}")

    def build(self, image: str, context: Path, dockerfile: str, arguments: dict[str, str]) -> None:
        """Build `image`; its RUN steps use this machine's network."""
        given = [part for key, value in arguments.items() for part in ("--build-arg", f"{key}={value}")]
        self.run(
            "build",
            "--network",
            "host",
            "--progress",
            "plain",
            "-t",
            image,
            "-f",
            context / dockerfile,
            *given,
            context,
        )


@contextlib.contextmanager
def docker_daemon() -> Iterator[Docker]:
    """Run a docker daemon whose data lies in the cache; stop it, and all it has on the machine, at the end."""
    install_debian({"dockerd": "docker.io", _CLIENT: "docker.io"})
    with exclusive("docker"):
        _clean()
        had_fixed = _FIXED.exists()
        _RUNTIME.mkdir(parents=True, exist_ok=True)
        log = cache_directory() / "docker.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        socket = _RUNTIME / "docker.sock"
        config = _RUNTIME / "daemon.json"
        config.write_text(json.dumps({"features": {"buildkit": True}, "storage-driver": "overlay2"}))
        with log.open("wb") as output:
            daemon = subprocess.Popen(
                [
                    "dockerd", "--config-file", config, "-H", f"unix://{socket}",
                    "--data-root", cache_directory() / "docker", "--exec-root", _RUNTIME / "exec",
                    "--pidfile", _RUNTIME / "dockerd.pid", "--cgroup-parent", "plimsoll-docker",
                    # No bridge, no rules, no forwarding: builds use the machine's network as it is.
                    "--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false",
                    "--ip-masq=false",
                ],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        docker = Docker(socket)

        def failed() -> str | None:
            ended = daemon.poll() is not None
            return f"it ended; see {log}:\n{log.read_text(errors='replace')[-1500:]}" if ended else None

        try:
            wait_until(lambda: _answers(docker), "dockerd answers", seconds=60, failed=failed)
            yield docker
        finally:
            _stop(daemon)
            _clean()
            if not had_fixed:
                shutil.rmtree(_FIXED, ignore_errors=True)


def _answers(docker: Docker) -> bool:
    return docker.socket.exists() and succeeds(_CLIENT, "-H", f"unix://{docker.socket}", "version")


def _stop(daemon: subprocess.Popen[bytes]) -> None:
    daemon.send_signal(signal.SIGTERM)
    try:
        daemon.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait()


def _clean() -> None:
    unmount_below(_RUNTIME, cache_directory() / "docker")
    shutil.rmtree(_RUNTIME, ignore_errors=True)


def _environment() -> dict[str, str]:
    # A configuration of the user's could name another builder or another daemon.
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DOCKER_")}
    return {**kept, "DOCKER_BUILDKIT": "1", "DOCKER_CONFIG": str(_RUNTIME)}
