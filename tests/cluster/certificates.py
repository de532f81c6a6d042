"""Keys, certificates and kubeconfigs of one instance: made afresh each time it comes up."""

from __future__ import annotations

import base64
import json
import secrets
from pathlib import Path

from tests.cluster.commands import run
from tests.cluster.settings import NODE_NAME, Instance

_USERS = {
    "admin": ("admin", "system:masters"),
    "kubelet": (f"system:node:{NODE_NAME}", "system:nodes"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "proxy": ("system:kube-proxy", ""),
}


def create(instance: Instance) -> None:
    """Write a CA, the serving and client certificates, the service-account key, tokens and kubeconfigs."""
    keys = instance.keys
    if instance.kubeconfig.exists():
        return
    keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    (keys / "openssl.cnf").write_text("[req]\ndistinguished_name = name\nprompt = no\n[name]\n")
    _certificate(keys, "ca", f"/CN=plimsoll-{instance.name}", "basicConstraints=critical,CA:TRUE", signed=False)
    service = "kubernetes.default.svc"
    names = ["kubernetes", "kubernetes.default", service, f"{service}.cluster.local", "localhost"]
    addresses = [instance.node_address, instance.api_service_address, "127.0.0.1"]
    _certificate(keys, "api", "/CN=kube-apiserver", _alternative_names(names, addresses))
    _certificate(keys, "api-to-kubelet", "/O=system:masters/CN=api-to-kubelet", "extendedKeyUsage=clientAuth")
    _certificate(
        keys, "kubelet", f"/CN={NODE_NAME}", _alternative_names([NODE_NAME], [instance.node_address, "127.0.0.1"])
    )
    run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", keys / "service-account.key")
    run(
        "openssl", "ec", "-in", keys / "service-account.key", "-pubout", "-out", keys / "service-account.pub"
    )  # fmt: skip
    tokens = {file: secrets.token_hex(16) for file in _USERS}
    lines = [f'{tokens[file]},{user},{file},"{group}"\n' for file, (user, group) in _USERS.items()]
    _private(keys / "tokens.csv", "".join(lines))
    # The administrator's last: its presence says that all the others are there.
    for file in reversed(_USERS):
        _private(keys / f"{file}.kubeconfig", _kubeconfig(instance, tokens[file]))


def _certificate(keys: Path, name: str, subject: str, extension: str, *, signed: bool = True) -> None:
    signer = ["-CA", str(keys / "ca.crt"), "-CAkey", str(keys / "ca.key")] if signed else []
    run(
        "openssl", "req", "-x509", "-config", keys / "openssl.cnf", "-days", "365", "-subj", subject,
        "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", *signer, "-addext", extension,
        "-keyout", keys / f"{name}.key", "-out", keys / f"{name}.crt",
    )  # fmt: skip


def _alternative_names(names: list[str], addresses: list[str]) -> str:
    return "subjectAltName=" + ",".join([f"DNS:{name}" for name in names] + [f"IP:{ip}" for ip in addresses])


def _kubeconfig(instance: Instance, token: str) -> str:
    name = f"plimsoll-{instance.name}"
    authority = base64.b64encode((instance.keys / "ca.crt").read_bytes()).decode()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": instance.server, "certificate-authority-data": authority}}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    }
    # JSON is YAML, and needs no library here.
    return json.dumps(config, indent=1)


def _private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
