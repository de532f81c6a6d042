"""python -m bench.breadth.reload TECHNIQUE FOLDER: open the artifact as a server would, without torch, and compare."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from plimsoll_api.artifact import ArtifactRef
from plimsoll_job.load.artifact import open_artifact
from plimsoll_job.load.store import Store
from plimsoll_job.sessions import open_session


def main() -> None:
    """Print how far the artifact's answers are from the module's, over the size of the answers."""
    technique, folder = sys.argv[1], Path(sys.argv[2])
    ref = ArtifactRef.model_validate_json((folder / technique / "artifact.json").read_bytes())
    session = open_session(open_artifact(ref, Store(claims=folder.parent), "artifact").graph, threads=1)
    with np.load(folder / technique / "expected.npz", allow_pickle=False) as kept:
        inputs = {name: kept[name] for name in kept.files if name != "answers"}
        expected = kept["answers"]
    together = session.run(None, inputs)[0]
    alone = session.run(None, {name: array[:1] for name, array in inputs.items()})[0]
    if "torch" in sys.modules:
        raise RuntimeError("torch was imported: the reload proves nothing")
    if together.shape != expected.shape:
        raise ValueError(f"answers have the shape {together.shape}, the module's {expected.shape}")
    size = float(np.linalg.norm(expected))
    error = max(
        float(np.linalg.norm(together - expected)) / size,
        float(np.linalg.norm(alone - expected[:1])) / float(np.linalg.norm(expected[:1])),
    )
    print(json.dumps({"error": error}))


if __name__ == "__main__":
    main()
