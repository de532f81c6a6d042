"""The programs that a cluster runs: Debian's by apt, the others built from the Go module proxy and cached."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.commands import run, succeeds
from tests.cluster.errors import ClusterError
from tests.cluster.locks import exclusive
from tests.cluster.progress import say
from tests.cluster.settings import Mode, cache_directory

_SOURCES = Path(__file__).parent / "go"
_KEPT_SECONDS = 7 * 86400
KUBERNETES = "v1.34.4"
HELM = "v4.3.1"
KWOK = "v0.8.0"
_VERSION_PACKAGE = "k8s.io/component-base/version"
_KUBERNETES_FLAGS = (
    f"-s -w -X {_VERSION_PACKAGE}.gitVersion={KUBERNETES} -X {_VERSION_PACKAGE}.gitMajor=1 "
    f"-X {_VERSION_PACKAGE}.gitMinor=34 -X {_VERSION_PACKAGE}.gitTreeState=clean"
)
_COMMANDS = "k8s.io/kubernetes/cmd"


@dataclass(frozen=True)
class Build:
    """Programs that are built together, from one module folder of ours or as `package@version`."""

    packages: tuple[str, ...]
    programs: tuple[str, ...]
    module: str | None = None
    flags: str = "-s -w"
    data: str | None = None
    """A folder of the packages' module that the programs need beside them, as `module@version/path`."""

    def key(self) -> str:
        """Return a name for what this build makes, that changes when its sources do."""
        digest = hashlib.sha256(repr((self.packages, self.flags, self.data)).encode())
        if self.module:
            for file in sorted((_SOURCES / self.module).rglob("*")):
                if file.is_file():
                    digest.update(file.name.encode() + file.read_bytes())
        return f"{self.programs[0]}-{digest.hexdigest()[:12]}"


BUILDS = (
    Build(
        packages=("go.etcd.io/etcd/server/v3", f"{_COMMANDS}/kube-apiserver", f"{_COMMANDS}/kubectl"),
        programs=("kube-apiserver", "etcd", "kubectl"),
        module="kubernetes",
        flags=_KUBERNETES_FLAGS,
    ),
    Build(
        packages=tuple(
            f"{_COMMANDS}/{name}" for name in ("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
        ),
        programs=("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"),
        module="kubernetes",
        flags=_KUBERNETES_FLAGS,
    ),
    Build(packages=("./coredns", "./pause"), programs=("coredns", "pause"), module="node"),
    Build(packages=(f"helm.sh/helm/v4/cmd/helm@{HELM}",), programs=("helm",), flags=""),
    Build(
        packages=(f"sigs.k8s.io/kwok/cmd/kwok@{KWOK}",),
        programs=("kwok",),
        flags="",
        data=f"sigs.k8s.io/kwok@{KWOK}/kustomize/stage",
    ),
)
_NEEDED = {
    Mode.API_ONLY: ("kube-apiserver", "etcd", "kubectl"),
    Mode.FAKE_NODES: ("kube-apiserver", "etcd", "kubectl", "kube-controller-manager", "kwok"),
    Mode.NODE: ("kube-apiserver", "etcd", "kubectl", "kube-controller-manager", "coredns", "helm"),
}
_DEBIAN = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "sysctl": "procps",
}
_DEBIAN_NODE = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "nft": "nftables",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "socat": "socat",
    "debootstrap": "debootstrap",
}


def tool(name: str) -> Path:
    """Return the path of one of the programs, building it first when the cache lacks it."""
    for build in BUILDS:
        if name in build.programs:
            return _ensure(build) / name
    raise ClusterError(f"no build makes the program {name!r}")


def build(mode: Mode) -> None:
    """Build and install all that a cluster of this mode needs."""
    install_debian(_DEBIAN | (_DEBIAN_NODE if mode is Mode.NODE else {}))
    for name in _NEEDED[mode]:
        tool(name)


def install_debian(packages: dict[str, str]) -> None:
    """Install by apt the Debian packages of the programs (name or path: package) that are not there."""
    missing = sorted({package for program, package in packages.items() if not _installed(program)})
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise ClusterError(f"these must be installed, and there is no apt-get here: {', '.join(missing)}")
    if os.geteuid() != 0:
        raise ClusterError(f"install these first, as root: apt-get install {' '.join(missing)}")
    with exclusive("apt"):
        say(f"installing {', '.join(missing)}")
        install = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "--no-install-recommends")
        if not succeeds(*install, *missing, seconds=900):
            run("apt-get", "update")
            run(*install, *missing)


def _installed(program: str) -> bool:
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    return found is not None


def _ensure(build: Build) -> Path:
    target = cache_directory() / "bin" / build.key()
    if target.is_dir():
        os.utime(target)
        return target
    if not shutil.which("go"):
        raise ClusterError("go is not installed: it builds Kubernetes from its sources")
    # One build at a time: two would only fight for the same cores and memory.
    with exclusive("build"):
        if not target.is_dir():
            _make(build, target)
    return target


def _make(build: Build, target: Path) -> None:
    say(f"building {', '.join(build.programs)} (cold: minutes)")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=target.parent) as scratch:
        output = Path(scratch) / "bin"
        output.mkdir()
        environment = {**os.environ, "CGO_ENABLED": "0", "GOBIN": str(output), "GOFLAGS": "-buildvcs=false"}
        if build.module:
            command = ["go", "build", "-mod=readonly", "-trimpath", "-ldflags", build.flags, "-o", f"{output}/"]
            run(*command, *build.packages, cwd=_SOURCES / build.module, environment=environment)
        else:
            run("go", "install", *build.packages, cwd=Path(scratch), environment=environment)
        if build.data:
            modules = run("go", "env", "GOMODCACHE").strip()
            shutil.copytree(Path(modules) / build.data, output / Path(build.data).name)
            run("chmod", "-R", "u+w", output)  # the module cache is read-only
        if (output / "server").exists():  # etcd's main package is called so
            (output / "server").rename(output / "etcd")
        absent = [name for name in build.programs if not (output / name).exists()]
        if absent:
            raise ClusterError(f"the build made no {', '.join(absent)}")
        output.rename(target)
    for other in target.parent.glob(f"{build.programs[0]}-*"):
        if time.time() - other.stat().st_mtime > _KEPT_SECONDS:
            shutil.rmtree(other, ignore_errors=True)
    say(f"built {', '.join(build.programs)}")
