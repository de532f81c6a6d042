"""The few questions that bringing up a cluster asks of it, over plain HTTPS."""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml
from tests.cluster.errors import ClusterError


class ApiClient:
    """Reads from the API server that a kubeconfig names, with a token or a client certificate."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        context = _named(config, "contexts", config["current-context"])["context"]
        cluster = _named(config, "clusters", context["cluster"])["cluster"]
        user = _named(config, "users", context["user"])["user"]
        self._server = str(cluster["server"]).rstrip("/")
        self._headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        self._tls = _tls(cluster, user, kubeconfig.parent)

    def get(self, path: str, *, seconds: float = 5) -> Any:
        """Return the JSON (or the text) at `path`; None when the server does not answer or refuses."""
        # The scheme and host come from the kubeconfig, never from data.
        request = urllib.request.Request(self._server + path, headers=self._headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=seconds, context=self._tls) as reply:  # noqa: S310
                text = reply.read().decode()
        except (OSError, urllib.error.HTTPError):
            return None
        try:
            return json.loads(text)
        except ValueError:
            return text

    def ready(self) -> bool:
        """Say whether the API server is ready to serve."""
        return bool(self.get("/readyz") == "ok")


def _named(config: dict[str, Any], section: str, name: str) -> dict[str, Any]:
    for entry in config.get(section) or []:
        if entry["name"] == name:
            return dict(entry)
    raise ClusterError(f"the kubeconfig has no entry {name!r} in {section}")


def _tls(cluster: dict[str, Any], user: dict[str, Any], base: Path) -> ssl.SSLContext:
    authority = _content(cluster, "certificate-authority", base)
    tls = ssl.create_default_context(cadata=authority.decode() if authority else None)
    if cluster.get("insecure-skip-tls-verify"):
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    certificate, key = _content(user, "client-certificate", base), _content(user, "client-key", base)
    if certificate and key:
        with tempfile.NamedTemporaryFile() as file:
            file.write(certificate + b"\n" + key)
            file.flush()
            tls.load_cert_chain(file.name)
    return tls


def _content(section: dict[str, Any], key: str, base: Path) -> bytes | None:
    if section.get(f"{key}-data"):
        return base64.b64decode(section[f"{key}-data"])
    return (base / section[key]).read_bytes() if section.get(key) else None
