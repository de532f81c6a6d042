"""The operator's settings: flags, each with an environment variable as its default."""

from __future__ import annotations

import argparse
import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

DEFAULT_JOB_IMAGE = "plimsoll/job:latest"


@dataclass(frozen=True, slots=True)
class Settings:
    """How this operator works."""

    namespaces: tuple[str, ...] = ()
    """The namespaces that it works in; all when empty."""
    job_image: str = DEFAULT_JOB_IMAGE
    metrics_port: int = 8080
    health_port: int = 8081
    leader_election: bool = True
    lease_name: str = "plimsoll-operator"
    lease_namespace: str = "default"
    identity: str = "plimsoll-operator"
    workers: int = 48
    audit_seconds: float = 20.0
    """How long the watches go unaudited; a silent one is found within twice as long."""
    log_format: str = "json"
    log_level: str = "INFO"


def parse_settings(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings that the arguments and the environment give."""
    env = os.environ if environment is None else environment
    parser = argparse.ArgumentParser(prog="plimsoll-operator", description="The operator of Plimsoll.")

    def option(flag: str, variable: str, default: str, text: str, kind: type = str) -> None:
        value = env.get(variable, default)
        parser.add_argument(flag, type=kind, default=value, help=f"{text} [{variable}, {default or 'unset'}]")

    option("--namespaces", "PLIMSOLL_NAMESPACES", "", "namespaces to work in, separated by commas; all when unset")
    option("--job-image", "PLIMSOLL_JOB_IMAGE", DEFAULT_JOB_IMAGE, "the image of jobs that name none")
    option("--metrics-port", "PLIMSOLL_METRICS_PORT", "8080", "port of /metrics", int)
    option("--health-port", "PLIMSOLL_HEALTH_PORT", "8081", "port of /healthz and /readyz", int)
    option("--leader-election", "PLIMSOLL_LEADER_ELECTION", "true", "work only while holding the Lease: true or false")
    option("--lease-name", "PLIMSOLL_LEASE_NAME", "plimsoll-operator", "the Lease's name")
    option("--lease-namespace", "POD_NAMESPACE", "default", "the Lease's namespace")
    option("--identity", "POD_NAME", "", "this operator's name on the Lease; made up when unset")
    option("--workers", "PLIMSOLL_WORKERS", "48", "objects that are worked on at the same time", int)
    option("--audit-seconds", "PLIMSOLL_AUDIT_SECONDS", "20", "seconds between two audits of the watches", float)
    option("--log-format", "PLIMSOLL_LOG_FORMAT", "json", "json or text")
    option("--log-level", "PLIMSOLL_LOG_LEVEL", "INFO", "DEBUG, INFO, WARNING or ERROR")
    given = parser.parse_args(arguments)
    return Settings(
        namespaces=tuple(name.strip() for name in given.namespaces.split(",") if name.strip()),
        job_image=given.job_image,
        metrics_port=given.metrics_port,
        health_port=given.health_port,
        leader_election=given.leader_election.lower() not in ("false", "no", "0"),
        lease_name=given.lease_name,
        lease_namespace=given.lease_namespace,
        identity=given.identity or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}",
        workers=given.workers,
        audit_seconds=given.audit_seconds,
        log_format=given.log_format,
        log_level=given.log_level.upper(),
    )
