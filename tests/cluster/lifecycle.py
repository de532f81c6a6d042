"""Up and down, as one sentence each."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from tests.cluster import (
    addons,
    binaries,
    certificates,
    control_plane,
    fake_nodes,
    images,
    machine,
    network,
    node,
    processes,
    runtime,
)
from tests.cluster.api_client import ApiClient
from tests.cluster.errors import ClusterError
from tests.cluster.locks import exclusive
from tests.cluster.progress import say
from tests.cluster.project_images import ProjectImage
from tests.cluster.settings import Instance, Mode, cache_directory, claim_instance, find_instance, storage_directory


def bring_up(
    name: str, mode: Mode, wanted_images: Iterable[ProjectImage] = (), fake_configs: Iterable[Path] = ()
) -> Instance:
    """Bring the instance `name` up to at least `mode`; what runs already is left as it is.

    A node gets the wanted images as the checkout is now, also when it was up before; kwok gets the configurations.
    """
    if os.geteuid() != 0:
        raise ClusterError(
            "a cluster of one's own needs root (network namespaces); name another one in PLIMSOLL_KUBECONFIG"
        )
    binaries.build(mode)
    with exclusive(f"cluster-{name}"):
        with exclusive("slots"):
            instance = claim_instance(name)
        if mode is Mode.FAKE_NODES and processes.running(instance, "kubelet"):
            raise ClusterError(f"the cluster {name!r} has a real node; give the one with fake nodes another name")
        if mode is Mode.NODE and processes.running(instance, "kwok"):
            raise ClusterError(f"the cluster {name!r} has fake nodes; give the one with a real node another name")
        network.create(instance)
        certificates.create(instance)
        if mode is Mode.NODE:
            with exclusive("slots"):
                machine.remember()
            runtime.start(instance)
        control_plane.start_api(instance, *(control_plane.audit_flags(instance) if mode is Mode.NODE else ()))
        if mode >= Mode.FAKE_NODES:
            control_plane.start_controllers(instance)
        if mode is Mode.FAKE_NODES:
            fake_nodes.start(instance, fake_configs)
        if mode is Mode.NODE:
            images.ensure_system(instance)
            addons.make_volumes(instance)
            addons.apply(instance)
            node.start(instance)
            images.ensure_project(instance, wanted_images)
    return instance


def take_down(name: str, *, wipe: bool = False) -> None:
    """Stop and remove all that the instance `name` has on this machine, but for its images and logs.

    With `wipe` those go too. Does nothing when there is nothing.
    """
    with exclusive(f"cluster-{name}"):
        instance = find_instance(name)
        if instance is not None:
            _remove(instance)
        if wipe:
            cache = instance.cache if instance else cache_directory()
            shutil.rmtree(storage_directory(name, cache), ignore_errors=True)


def _remove(instance: Instance) -> None:
    node.stop(instance)
    addons.wipe_volumes(instance)
    processes.stop(instance, processes.started_names(instance))
    network.remove(instance)
    shutil.rmtree(instance.etcd_data, ignore_errors=True)
    # The slot last: until then a second `down` finds the rest.
    for entry in instance.runtime.iterdir():
        if entry.name != "slot":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    shutil.rmtree(instance.runtime)
    with contextlib.suppress(OSError):  # other instances are up
        instance.runtime.parent.rmdir()
    say(f"cluster {instance.name} is down")


def answers(name: str) -> bool:
    """Say whether the API server of the instance `name` is up."""
    instance = find_instance(name)
    return instance is not None and instance.kubeconfig.exists() and ApiClient(instance.kubeconfig).ready()


def describe(name: str) -> list[str]:
    """Return a line for each of the instance's processes."""
    instance = find_instance(name)
    if instance is None:
        return [f"cluster {name} is down"]
    return [
        f"{process}: {'running' if processes.running(instance, process) else 'ended'}"
        for process in processes.started_names(instance)
    ]
