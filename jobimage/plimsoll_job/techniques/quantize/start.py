"""What every scheme starts from, and the answers of what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from plimsoll_job.errors import UserError
from plimsoll_job.export.graph import strip
from plimsoll_job.export.lean import LeanModel
from plimsoll_job.load.data import Samples
from plimsoll_job.memory import give_back
from plimsoll_job.scratch import HeldFile, Scratch
from plimsoll_job.sessions import open_frugally, open_restoring, open_served, open_session, serving_gpu
from plimsoll_job.techniques.quantize.fidelity import Answers, answers
from plimsoll_job.techniques.quantize.float_model import FloatModel
from plimsoll_job.techniques.quantize.ranges import Observed, Ranges
from plimsoll_job.techniques.quantize.schemes import Scheme

#: Sensitivity compares answers and nothing else: one thread gives the same ones every time.
THREADS = 1


@dataclass(frozen=True)
class Start:
    """What every scheme starts from: the model, its slim file, its answers to the calibration data if there is any."""

    model: FloatModel
    graph: Path
    calibration: Samples | None
    expected: Answers | None
    #: What is known of the activations already.
    observed: Observed | None = None
    #: The ranges of activations where they were learned, and those of each layer's input that they were learned from.
    ranges: Ranges | None = None
    calibrated: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """The bytes of the slim file."""
        return self.graph.stat().st_size

    @classmethod
    def of(cls, model: FloatModel, calibration: Samples | None) -> Start:
        """Return the start, with the answers of the float model."""
        graph = model.scratch.path / "slim.onnx"
        slim_model = model.lean()
        strip(slim_model)
        slim_model.write(graph)
        give_back()
        start = cls(model, graph, calibration, expected=None)
        if calibration is None:
            return start
        expected = start.answers_to(calibration)
        check_finite(expected)
        return replace(start, expected=expected)

    def answers_to(self, samples: Samples) -> Answers:
        """Return the float model's answers."""
        return answers(open_frugally(self.graph), samples)


def write(model: LeanModel) -> HeldFile:
    """Write the model with nothing in it that no runtime reads; the model is changed."""
    strip(model)
    scratch = Scratch()
    written = HeldFile(scratch.path / "model.onnx", scratch)
    model.write(written.path)
    return written


def served_answers(graph: HeldFile, scheme: Scheme, samples: Samples) -> Answers:
    """Return the answers of a graph in the scheme's format, as they are served here."""
    if serving_gpu() is None:
        return answers_in(graph, scheme, samples)
    return answers(open_served(graph.path, THREADS), samples)


def answers_in(graph: HeldFile, scheme: Scheme, samples: Samples) -> Answers:
    """Return the answers of a graph in the scheme's format, as processors compute them."""
    give_back()
    if not scheme.of_integers:
        return answers(open_restoring(graph.path), samples)
    # What integers come to depends on kernels that take packed weights only.
    return answers(open_session(graph.path, THREADS), samples)


def check_finite(expected: Answers) -> None:
    """UserError where the float model's own answers to the calibration data are not finite: nor would its ranges be."""
    # Of tokens, those of the padding may be anything.
    wrong = 0 if expected.ndim > 2 else int((~np.isfinite(expected).reshape(len(expected), -1).all(axis=1)).sum())
    if wrong:
        raise UserError(
            f"spec.data.calibration: the model answers {wrong} of its {len(expected)} samples with NaN or infinity "
            f"before it is quantized; {'look at its weights' if wrong == len(expected) else 'leave such samples out'}",
            reason="AnswersNotFinite",
        )
