"""Criteria of structured pruning beside each other, without training after: `make bench-prune`.

An interrupted run goes on from the rows that it kept. Small models of several seeds, which the project trains itself:
the CNN of the digits, a residual net for them, the BERT of the reviews, and the perceptron of the wines. Accuracy is
that on data that nobody trained or calibrated on.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench.page import markdown_table, put_between_markers
from bench.rows import append, read
from numpy.typing import NDArray
from torch import nn

from plimsoll_api.sources import Task
from plimsoll_api.spec import Prune
from plimsoll_job.compress import make_deterministic
from plimsoll_job.examples import digits, transformer
from plimsoll_job.load.data import Samples
from plimsoll_job.load.inputs import SINGLE_INPUT, Input, Signature, single
from plimsoll_job.load.model import SourceModel
from plimsoll_job.load.text import ATTENTION_MASK, INPUT_IDS, tokenize
from plimsoll_job.progress import Reporter
from plimsoll_job.techniques import prune
from plimsoll_job.techniques.shape import Bench, Candidate
from plimsoll_job.zoo import wine_mlp

ROOT = Path(__file__).parents[1]
PAGE, RESULTS = ROOT / "docs" / "techniques" / "prune.md", ROOT / "build" / "prune.jsonl"
CRITERIA = ("Magnitude", "Activation", "Taylor", "Redundancy")
AMOUNTS = ("30%", "50%", "70%")
CALIBRATION_SAMPLES = 256
WINES_TRAINED = 90


@dataclass(frozen=True)
class Trained:
    """A model, the data that calibrates it, and data with labels that it never saw."""

    module: nn.Module
    signature: Signature
    calibration: Samples
    test: Samples


@dataclass(frozen=True)
class Row:
    """The accuracy of one seed of a model; without an amount that of the model as it is."""

    model: str
    seed: int
    criterion: str
    amount: str
    batch_norm: str
    accuracy: float


class Block(nn.Module):
    """Two convolutions beside a way around them."""

    def __init__(self, read: int, written: int, stride: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(read, written, 3, stride, 1, bias=False), nn.BatchNorm2d(written), nn.ReLU(),
            nn.Conv2d(written, written, 3, 1, 1, bias=False), nn.BatchNorm2d(written),
        )  # fmt: skip
        self.around = nn.Sequential()
        if stride > 1:
            self.around.extend([nn.Conv2d(read, written, 1, stride, bias=False), nn.BatchNorm2d(written)])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the sum of both."""
        return torch.relu(self.inner(images) + self.around(images))


class ResidualNet(nn.Sequential):
    """Four residual blocks for the digits: 296,554 parameters."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            Block(32, 32, 1), Block(32, 64, 2), Block(64, 64, 1), Block(64, 96, 2),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10),
        )  # fmt: skip


class Answers(nn.Module):
    """A model of transformers that answers with its logits alone."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the logits of texts."""
        logits: torch.Tensor = self.inner(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def fitted(module: nn.Module, samples: Samples, seed: int, epochs: int) -> nn.Module:
    """Return the module, trained on samples of one input with labels."""
    assert samples.labels is not None  # noqa: S101 — all here have them
    torch.manual_seed(seed)
    inputs, labels = torch.from_numpy(samples.inputs[SINGLE_INPUT]), torch.from_numpy(samples.labels)
    optimizer = torch.optim.AdamW(module.train().parameters(), lr=2e-3, weight_decay=0.01)
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs)).split(30):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(inputs[batch]), labels[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return module.eval()


def labelled(inputs: NDArray[np.float32], labels: NDArray[np.int64]) -> Samples:
    """Return samples of one input."""
    return Samples({SINGLE_INPUT: inputs}, labels, digest="")


def drawn(samples: Samples, seed: int) -> Samples:
    """Return some of the samples for calibration."""
    return samples.take(np.random.default_rng(seed).permutation(len(samples))[:CALIBRATION_SAMPLES])


def of_digits(seed: int, train: Callable[[Samples, int], nn.Module]) -> Trained:
    """Return a model of the digits; the second half of the people who wrote is held out."""
    images, labels = digits.load_images()
    samples = labelled(*digits.with_shifts(images[: digits.TRAIN_SAMPLES], labels[: digits.TRAIN_SAMPLES]))
    test = labelled(images[digits.TRAIN_SAMPLES :], labels[digits.TRAIN_SAMPLES :])
    return Trained(train(samples, seed), single(digits.IMAGE), drawn(samples, seed), test)


def the_cnn(samples: Samples, seed: int) -> nn.Module:
    """Return the CNN of the digits example."""
    assert samples.labels is not None  # noqa: S101 — all here have them
    return digits.train_baseline(samples.inputs[SINGLE_INPUT], samples.labels, seed)


def a_residual_net(samples: Samples, seed: int) -> nn.Module:
    """Return a residual net."""
    torch.manual_seed(seed)
    return fitted(ResidualNet(), samples, seed, epochs=3)


def of_reviews(seed: int) -> Trained:
    """Return the BERT of the transformer example; most of its reviews are padded."""
    tokenizer, train = transformer.tokenizer_json(), transformer.reviews(transformer.TRAIN_SAMPLES, seed)
    module = Answers(transformer.train_baseline(train, tokenizer, seed)).eval()

    def samples(texts: Sequence[dict[str, str]]) -> Samples:
        arrays = tokenize([one["review"] for one in texts], tokenizer.encode(), transformer.LENGTH)
        moods = np.array([transformer.MOODS.index(one["mood"]) for one in texts])
        return Samples({name: arrays[name] for name in (INPUT_IDS, ATTENTION_MASK)}, moods, digest="")

    words = module.inner.get_parameter("bert.embeddings.word_embeddings.weight").shape[0]
    signature = tuple(
        Input(name, (transformer.LENGTH,), "int64", below, any_length=True)
        for name, below in ((INPUT_IDS, words), (ATTENTION_MASK, 2))
    )
    # As in the example itself: the next seed's reviews are others.
    test = samples(transformer.reviews(transformer.TEST_SAMPLES, seed + 1_000))
    return Trained(module, signature, drawn(samples(train), seed), test)


def of_wines(seed: int) -> Trained:
    """Return the perceptron of the wines; half of them are held out."""
    from sklearn.datasets import load_wine  # noqa: PLC0415 — seconds to import

    wines, order = load_wine(), np.random.default_rng(seed).permutation(178)
    rows = ((wines.data - wines.data.mean(axis=0)) / wines.data.std(axis=0)).astype(np.float32)
    train, test = (labelled(rows[some], wines.target[some]) for some in (order[:WINES_TRAINED], order[WINES_TRAINED:]))
    torch.manual_seed(seed)
    return Trained(fitted(wine_mlp(), train, seed, epochs=40), single((13,)), drawn(train, seed), test)


MODELS: dict[str, Callable[[int], Trained]] = {
    "digits CNN": partial(of_digits, train=the_cnn),
    "residual net": partial(of_digits, train=a_residual_net),
    "BERT of reviews": of_reviews,
    "wine perceptron": of_wines,
}
#: Those with batch norm behind layers that can lose channels.
NORMALISED = ("digits CNN", "residual net")


def pruned(trained: Trained, seed: int, criterion: str, amount: str, batch_norm: str) -> nn.Module:
    """Return the model without that amount."""
    module = copy.deepcopy(trained.module)
    source = SourceModel(partial(copy.deepcopy, module), architecture="bench", digest="")
    bench = Bench(
        source, trained.signature, None, trained.calibration, seed, "prune", Reporter(emit=lambda _: None),
        task=Task.TABULAR_CLASSIFICATION,
    )  # fmt: skip
    settings = Prune.model_validate({"criterion": criterion, "amount": amount, "batchNorm": batch_norm})
    return prune.apply(settings, Candidate(module), bench).candidate.module


def accuracy(module: nn.Module, samples: Samples) -> float:
    """Return the share of samples that the module answers rightly."""
    assert samples.labels is not None  # noqa: S101 — all here have them
    with torch.no_grad():
        answers = [module(*map(torch.from_numpy, batch.values())).argmax(dim=1).numpy() for batch in samples.batches()]
    return float((np.concatenate(answers) == samples.labels).mean())


def asked(model: str) -> Iterator[tuple[str, str, str]]:
    """Yield the criteria, amounts and treatments of batch norm to be measured, the model as it is first."""
    yield "", "", ""
    for batch_norm in ("Reestimate", "Keep") if model in NORMALISED else ("Keep",):
        for amount in AMOUNTS:
            for criterion in CRITERIA:
                yield criterion, amount, batch_norm


def measure(model: str, seed: int, file: Path) -> None:
    """Measure what the file lacks of one seed of the model."""
    known = {
        (one.criterion, one.amount, one.batch_norm)
        for one in read(file, Row)
        if one.model == model and one.seed == seed
    }
    missing = [one for one in asked(model) if one not in known]
    if not missing:
        return
    trained = MODELS[model](seed)
    for criterion, amount, batch_norm in missing:
        module = pruned(trained, seed, criterion, amount, batch_norm) if criterion else trained.module
        row = Row(model, seed, criterion, amount, batch_norm, accuracy(module, trained.test))
        append(file, row)
        print(row, file=sys.stderr, flush=True)


def lines(rows: Sequence[Row], seeds: int) -> list[str]:
    """Return the page's table: the mean over the seeds, and in brackets the least."""
    found: dict[tuple[str, str, str, str], dict[int, float]] = {}
    for one in rows:
        if one.seed < seeds:
            found.setdefault((one.model, one.batch_norm, one.amount, one.criterion), {})[one.seed] = one.accuracy

    def cell(*key: Any) -> str:
        values = list(found.get(key, {}).values())
        return f"{statistics.mean(values):.1%} ({min(values):.1%})" if values else "not measured"

    table = []
    for model in MODELS:
        table.append([model, "", "none", *[cell(model, "", "", "")] * len(CRITERIA)])
        for batch_norm in ("Reestimate", "Keep") if model in NORMALISED else ("Keep",):
            told = batch_norm if model in NORMALISED else "has none"
            for amount in AMOUNTS:
                table.append([model, told, amount, *(cell(model, batch_norm, amount, one) for one in CRITERIA)])
    head = ("model", "batchNorm", "amount", *CRITERIA)
    return [f"Accuracy, the mean of {seeds} seeds and in brackets the worst.", "", *markdown_table(head, table)]


def main() -> None:
    """Measure, print the table, and write it into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how many of each model are trained")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file of rows; delete it to begin anew")
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    make_deterministic()
    for model in arguments.models:
        for seed in range(arguments.seeds):
            measure(model, seed, arguments.results)
    found = lines(read(arguments.results, Row), arguments.seeds)
    print("\n".join(found))
    put_between_markers(arguments.page, "bench-prune", found)


if __name__ == "__main__":
    main()
