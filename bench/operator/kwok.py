"""How kwok pretends our pods: each runs and ends at once, with the answers given beforehand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from bench.operator.workload import Answers

from plimsoll_api import names

_API_VERSION = "kwok.x-k8s.io/v1alpha1"


def write_config(folder: Path, answers: Answers) -> Path:
    """Write kwok's stage and log for our pods below the folder, and return the file to give it."""
    log = folder / "pod.log"
    log.write_text(answers.log)
    file = folder / "bench-stages.yaml"
    file.write_text(yaml.safe_dump_all([_pod_complete(answers), _logs(log)]))
    return file


def _pod_complete(answers: Answers) -> dict[str, Any]:
    """Return the stage that takes the place of kwok's own of that name, which gives no termination message."""
    expressions = [
        {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"},
        {"key": ".status.phase", "operator": "In", "values": ["Running"]},
        {"key": ".metadata.ownerReferences.[].kind", "operator": "In", "values": ["Job"]},
    ]
    template = _COMPLETE.format(
        label=json.dumps(names.LABEL_STAGE),
        compress=names.STAGE_COMPRESS,
        compress_message=_literal(answers.compress_message),
        evaluate_message=_literal(answers.evaluate_message),
    )
    return {
        "apiVersion": _API_VERSION,
        "kind": "Stage",
        "metadata": {"name": "pod-complete"},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": "Pod"},
            "selector": {"matchExpressions": expressions},
            "next": {"statusTemplate": template},
        },
    }


_COMPLETE = """
{{{{ $now := Now }}}}
{{{{ $stage := index .metadata.labels {label} }}}}
containerStatuses:
{{{{ range .spec.containers }}}}
- image: {{{{ .image | Quote }}}}
  name: {{{{ .name | Quote }}}}
  ready: false
  restartCount: 0
  started: false
  state:
    terminated:
      exitCode: 0
      finishedAt: {{{{ $now | Quote }}}}
      startedAt: {{{{ $now | Quote }}}}
      reason: Completed
      {{{{ if eq $stage "{compress}" }}}}
      message: {compress_message}
      {{{{ else }}}}
      message: {evaluate_message}
      {{{{ end }}}}
{{{{ end }}}}
phase: Succeeded
"""


def _literal(text: str) -> str:
    """Return the text as a YAML scalar that a Go template leaves alone."""
    # Only {{ begins an action there, and JSON never has two of them side by side: after { comes " or }.
    return "'" + text.replace("'", "''") + "'"


def _logs(file: Path) -> dict[str, Any]:
    return {
        "apiVersion": _API_VERSION,
        "kind": "ClusterLogs",
        "metadata": {"name": "all-pods"},
        "spec": {"logs": [{"logsFile": str(file)}]},
    }
