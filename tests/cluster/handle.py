"""What tests hold: a cluster that is up, and the right to take it down."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.cluster import lifecycle
from tests.cluster.api_client import ApiClient
from tests.cluster.binaries import tool
from tests.cluster.commands import run
from tests.cluster.errors import ClusterError
from tests.cluster.project_images import PROJECT_IMAGES
from tests.cluster.settings import Mode, default_name, find_instance


@dataclass
class Cluster:
    """A cluster that answers. As a context manager, it is stopped at the end if it was started here."""

    name: str
    kubeconfig: Path
    started_here: bool
    _host_address: str | None = field(default=None, repr=False)
    _keeps_images: bool = field(default=True, repr=False)

    @classmethod
    def up(
        cls,
        name: str | None = None,
        *,
        mode: Mode = Mode.NODE,
        images: bool = True,
        fake_configs: Sequence[Path] = (),
    ) -> Self:
        """Bring the instance `name` up to `mode`, or use the cluster that `PLIMSOLL_KUBECONFIG` names.

        A node gets the project's images as the checkout is now, unless `images` is false; a given cluster must have
        them, by the names in `tests.cluster.project_images`, or be able to pull them.
        With fake nodes, the documents in `fake_configs` (Stage, ClusterLogs, …) are laid over kwok's default stages.
        Raises ClusterError when it does not come up; what was started for it is then taken down again.
        """
        given = os.environ.get("PLIMSOLL_KUBECONFIG")
        if given:
            return cls._given(Path(given).expanduser())
        chosen = name or default_name()
        there = lifecycle.answers(chosen)
        wanted = PROJECT_IMAGES if images and mode is Mode.NODE else ()
        try:
            instance = lifecycle.bring_up(chosen, mode, wanted, fake_configs)
        except BaseException:
            if not there:
                lifecycle.take_down(chosen)
            raise
        return cls(chosen, instance.kubeconfig, not there, instance.host_address, mode is Mode.NODE)

    @classmethod
    def _given(cls, kubeconfig: Path) -> Self:
        if not kubeconfig.is_file():
            raise ClusterError(f"PLIMSOLL_KUBECONFIG names {kubeconfig}, which is no file")
        if not ApiClient(kubeconfig).ready():
            raise ClusterError(f"the cluster of PLIMSOLL_KUBECONFIG ({kubeconfig}) does not answer")
        return cls("given", kubeconfig, False, os.environ.get("PLIMSOLL_HOST_ADDRESS"))

    @property
    def host_address(self) -> str:
        """The address of this machine as pods see it."""
        if not self._host_address:
            raise ClusterError("set PLIMSOLL_HOST_ADDRESS: this machine's address as pods of the given cluster see it")
        return self._host_address

    @property
    def audit_log(self) -> Path | None:
        """Where the API server writes down the operator's requests; None for a given cluster or one without a node."""
        instance = find_instance(self.name)
        return instance.audit_log if instance and instance.audit_log.exists() else None

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl against this cluster and return what it prints; raise ClusterError when it fails."""
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        given = stdin.encode() if stdin is not None else None
        return run(tool("kubectl"), *arguments, stdin=given, environment=environment)

    def stop(self) -> None:
        """Take the cluster down if `up` started it; leave one alone that was there before."""
        if self.started_here:
            # Without a node there are no images to keep, and one-off names would pile up folders.
            lifecycle.take_down(self.name, wipe=not self._keeps_images)
            self.started_here = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
