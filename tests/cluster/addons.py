"""What is applied to a fresh cluster: DNS, a default storage class, and volumes that claims can bind."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from string import Template

from tests.cluster.binaries import tool
from tests.cluster.commands import run
from tests.cluster.settings import NODE_NAME, Instance

VOLUMES = 32
VOLUME_SIZE = "5Gi"


def apply(instance: Instance) -> None:
    """Apply DNS, the storage class and the volumes; the volumes' folders are made empty when they are new."""
    template = Template((Path(__file__).parent / "addons.yaml").read_text())
    documents = [template.substitute(dns_address=instance.dns_address)]
    documents += [json.dumps(_volume(instance, number)) for number in range(VOLUMES)]
    environment = {**os.environ, "KUBECONFIG": str(instance.kubeconfig)}
    manifest = "\n---\n".join(documents).encode()
    run(tool("kubectl"), "apply", "--server-side", "-f", "-", stdin=manifest, environment=environment)


def make_volumes(instance: Instance) -> None:
    """Make the folders of the volumes, if they are not there."""
    for number in range(VOLUMES):
        _folder(instance, number).mkdir(parents=True, exist_ok=True)


def wipe_volumes(instance: Instance) -> None:
    """Delete all that pods wrote to volumes."""
    shutil.rmtree(instance.volumes, ignore_errors=True)


def _folder(instance: Instance, number: int) -> Path:
    return instance.volumes / f"volume-{number:02}"


def _volume(instance: Instance, number: int) -> dict[str, object]:
    # `local`, because a hostPath volume does not honour a pod's fsGroup.
    on_node = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE_NAME]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"volume-{number:02}"},
        "spec": {
            "capacity": {"storage": VOLUME_SIZE},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "local",
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": str(_folder(instance, number))},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_node]}]}},
        },
    }
