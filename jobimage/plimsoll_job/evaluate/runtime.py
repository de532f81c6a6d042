"""The serving runtime: ONNX Runtime sessions over verified bytes, with pinned threads, on the GPU if there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll_job.boundary import boundary
from plimsoll_job.load.artifact import Artifact
from plimsoll_job.load.data import Samples
from plimsoll_job.load.inputs import Arrays
from plimsoll_job.sessions import open_served


class Server:
    """One model as it would be served."""

    def __init__(self, artifact: Artifact, *, threads: int, spec_field: str) -> None:
        with boundary(spec_field, f"ONNX Runtime cannot load {artifact.ref.uri}"):
            self._session = open_served(artifact.graph, threads)
        self._spec_field, self._uri = spec_field, artifact.ref.uri
        self.shapes = {one.name: one.shape[1:] for one in artifact.manifest.inputs}
        #: Classes, numbers or dimensions of an answer.
        self.outputs = artifact.manifest.outputs[0].shape[-1] or 0

    def run(self, inputs: Arrays) -> NDArray[np.float32]:
        """Return the outputs of one batch."""
        output: Any = self._session.run(None, inputs)[0]
        return np.asarray(output)

    def predict(self, samples: Samples, keep: Callable[[NDArray[np.float32]], NDArray[Any]]) -> NDArray[Any]:
        """Return what is to be kept of the outputs of every sample."""
        with boundary(self._spec_field, f"{self._uri} cannot answer the evaluation data"):
            return np.concatenate([keep(self.run(batch)) for batch in samples.batches()])
