"""The transformer example's model and data: `python -m plimsoll_job.examples.transformer MODELS DATA`.

Reviews of hotels, made of a few words: the last clause decides, and a rare "not" turns it around: a bag of words
is not enough. A small BERT learns them in seconds. Nothing is downloaded; the directory is as transformers writes it.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

# Read when transformers is imported: nothing is ever asked of a hub.
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from torch import nn

from plimsoll_job.compress import make_deterministic
from plimsoll_job.load.text import ATTENTION_MASK, INPUT_IDS, tokenize
from plimsoll_job.publish.files import write_file
from plimsoll_job.techniques.distill.training import split_samples

GOOD = ("clean", "lovely", "quiet", "bright", "friendly", "fresh")
BAD = ("dirty", "dreary", "noisy", "dark", "rude", "stale")
THINGS = ("room", "bath", "staff", "breakfast", "lobby", "garden", "bar", "pool")
OTHER = ("the", "was", "not", "and", "but", "very", "rather")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
MOODS = ("gloomy", "glad")
LENGTH = 32
TURNED = 0.1
TRAIN_SAMPLES, CALIBRATION_SAMPLES, TEST_SAMPLES = 3_000, 256, 2_000
EPOCHS, BATCH_SIZE, LEARNING_RATE, SEED = 5, 32, 1e-3, 0
SIZES: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256,
    "max_position_embeddings": LENGTH, "num_labels": len(MOODS), "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0, "pad_token_id": 0,
}  # fmt: skip


def reviews(count: int, seed: int) -> list[dict[str, Any]]:
    """Return reviews with their mood, and the number of their clauses."""
    chance = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        clauses, mood = [], 0
        for _ in range(int(chance.integers(1, 5))):
            good, turned = bool(chance.integers(2)), bool(chance.random() < TURNED)
            words = ["the", str(chance.choice(THINGS)), "was", *(["not"] if turned else [])]
            words += [str(chance.choice(("very", "rather")))] if chance.integers(2) else []
            clauses.append(" ".join([*words, str(chance.choice(GOOD if good else BAD))]))
            mood = int(good != turned)
        joined = " and ".join(clauses[:-1]) + " but " + clauses[-1] if len(clauses) > 1 else clauses[0]
        made.append({"review": joined, "mood": MOODS[mood], "clauses": str(len(clauses))})
    return made


def tokenizer_json() -> str:
    """Return a tokenizer of the words of reviews, one token a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: PLC0415

    words = [*SPECIAL, *OTHER, *THINGS, *GOOD, *BAD]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, words.index(name)) for name in ("[CLS]", "[SEP]")],
    )
    text: str = tokenizer.to_str()
    return text


def train_baseline(texts: list[dict[str, Any]], tokenizer: str, seed: int = SEED) -> Any:
    """Return transformers' model, trained on the reviews; the same seed on the same machine gives the same weights."""
    import transformers  # noqa: PLC0415 — seconds to import

    make_deterministic()
    torch.manual_seed(seed)
    vocabulary = len(json.loads(tokenizer)["model"]["vocab"])
    model: Any = transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=vocabulary, **SIZES))
    arrays = tokenize([one["review"] for one in texts], tokenizer.encode(), LENGTH)
    ids, mask = torch.from_numpy(arrays[INPUT_IDS]), torch.from_numpy(arrays[ATTENTION_MASK])
    moods = torch.tensor([MOODS.index(one["mood"]) for one in texts])
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    steps = EPOCHS * len(split_samples(torch.arange(len(ids)), BATCH_SIZE))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    model.train()
    for _ in range(EPOCHS):
        for batch in split_samples(torch.randperm(len(ids)), BATCH_SIZE):
            logits = model(input_ids=ids[batch], attention_mask=mask[batch]).logits
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits, moods[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return model.eval()


def prepare(models: Path, data: Path, seed: int = SEED) -> None:
    """Write the model as a Hugging Face directory, and the data sets as JSON lines."""
    tokenizer = tokenizer_json()
    train = reviews(TRAIN_SAMPLES, seed)
    target = models / "reviews-bert"
    train_baseline(train, tokenizer, seed).save_pretrained(target)
    write_file(target / "tokenizer.json", tokenizer.encode())
    sets = {"train": train, "calibration": train[:CALIBRATION_SAMPLES], "test": reviews(TEST_SAMPLES, seed + 1)}
    for name, texts in sets.items():
        lines = "".join(json.dumps(one) + "\n" for one in texts)
        write_file(data / f"reviews-{name}.jsonl", lines.encode())


def main() -> None:
    """Prepare the example below the two directories."""
    parser = argparse.ArgumentParser(prog="python -m plimsoll_job.examples.transformer", description=__doc__)
    parser.add_argument("models", type=Path, help="the directory of the claim that holds models")
    parser.add_argument("data", type=Path, help="the directory of the claim that holds data")
    arguments = parser.parse_args()
    prepare(arguments.models, arguments.data)
    print(f"The BERT of reviews lies in {arguments.models / 'reviews-bert'}.")


if __name__ == "__main__":
    main()
