"""Texts as tokens, cut by the tokenizer that comes with the model, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll_api.artifact import TEXT_FILES, TOKENIZER_FILE
from plimsoll_job.errors import UserError
from plimsoll_job.load.store import Store

INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS = "input_ids", "attention_mask", "token_type_ids"
#: All that a tokenizer gives of texts, in the order in which models take it.
TOKENS = (INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS)
#: How tokenizers that say nothing of padding call the token for it.
PADDING_TOKENS = ("[PAD]", "<pad>", "<|pad|>", "<|endoftext|>", "</s>")

#: One text a sample, or two that belong together.
Text = str | tuple[str, str]


def read_text_files(uri: str, store: Store, spec_field: str) -> dict[str, bytes]:
    """Return what lies in the folder, by name, of the files that say how texts become tokens."""
    folder = store.locate(uri, spec_field)
    return {name: store.read(f"{uri}/{name}", spec_field) for name in TEXT_FILES if (folder / name).exists()}


def texts_of(columns: Sequence[NDArray[Any]], names: Sequence[str], spec_field: str) -> list[Text]:
    """Return the texts, or the pairs of texts, of one or two columns; UserError where an entry is no text."""
    for name, column in zip(names, columns, strict=True):
        wrong = next((row for row, text in enumerate(column.tolist()) if not isinstance(text, str)), None)
        if wrong is not None:
            raise UserError(f"{spec_field}: {name!r} holds {column[wrong]!r} in sample {wrong}, expected text")
        if len(column) != len(columns[0]):
            raise UserError(f"{spec_field}: {name!r} has {len(column)} entries, {names[0]!r} has {len(columns[0])}")
    if not len(columns[0]):
        raise UserError(f"{spec_field}: the data set is empty")
    texts: list[Text] = columns[0].tolist()
    return texts if len(columns) == 1 else list(zip(texts, columns[1].tolist(), strict=True))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Words:
    """The word that each token is the first of, or -1 [n, length]; and the number of words of each sample."""

    begun: NDArray[np.int64]
    counts: Sequence[int]


def words_of(column: NDArray[Any], name: str, spec_field: str) -> list[list[str]]:
    """Return the words of each sample; UserError where an entry is no list of words."""
    samples: list[list[str]] = column.tolist()
    for row, words in enumerate(samples):
        if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
            raise UserError(f"{spec_field}: {name!r} holds {words!r} in sample {row}, expected a list of words")
    return samples


def tokenize(
    texts: Sequence[Text], tokenizer_json: bytes, length: int, spec_field: str = "spec.model.uri"
) -> dict[str, NDArray[np.int64]]:
    """Return input_ids, attention_mask and token_type_ids [n, length]: longer texts are cut, shorter ones padded.

    The types tell the second text of a pair from the first, where the tokenizer does. UserError when the file is no
    tokenizer, or a text has not one token.
    """
    return _encode(texts, tokenizer_json, length, spec_field)[0]


def tokenize_words(
    samples: Sequence[Sequence[str]], tokenizer_json: bytes, length: int, spec_field: str
) -> tuple[dict[str, NDArray[np.int64]], Words]:
    """Return the same of samples that are cut into words already, and where each word begins."""
    arrays, begun = _encode(samples, tokenizer_json, length, spec_field, words=True)
    return arrays, Words(begun, [len(words) for words in samples])


def _encode(
    texts: Sequence[Any], tokenizer_json: bytes, length: int, spec_field: str, *, words: bool = False
) -> tuple[dict[str, NDArray[np.int64]], NDArray[np.int64]]:
    # 40 ms to import, and most jobs have no text.
    from tokenizers import Tokenizer  # noqa: PLC0415

    # What the library raises is a bare Exception.
    try:
        tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    except Exception as error:
        raise UserError(f"{spec_field}: the model's {TOKENIZER_FILE} is no tokenizer: {error}") from error
    padding, truncation = tokenizer.padding or {}, tokenizer.truncation or {}
    known = (tokenizer.token_to_id(token) for token in PADDING_TOKENS)
    pad_id = padding.get("pad_id", next((number for number in known if number is not None), 0))
    tokenizer.no_padding()
    # The library may leave a text longer than that when its template alone is as long.
    tokenizer.enable_truncation(length, direction=truncation.get("direction", "right"))
    ids = np.full((len(texts), length), pad_id, dtype=np.int64)
    mask, types, begun = np.zeros((3, len(texts), length), dtype=np.int64)
    begun -= 1
    for row, encoding in enumerate(tokenizer.encode_batch(list(texts), is_pretokenized=words)):
        count = len(encoding.ids)
        if not 0 < count <= length:
            fault = f"does not fit {length} tokens" if count else "has no token"
            raise UserError(f"{spec_field}: the text of sample {row} {fault}: {texts[row]!r}")
        place = slice(length - count, None) if padding.get("direction") == "left" else slice(count)
        ids[row, place], mask[row, place], types[row, place] = encoding.ids, 1, encoding.type_ids
        before = [None, *encoding.word_ids[:-1]]
        begun[row, place] = [
            word if word is not None and word != last else -1
            for word, last in zip(encoding.word_ids, before, strict=True)
        ]
    return {INPUT_IDS: ids, ATTENTION_MASK: mask, TOKEN_TYPE_IDS: types}, begun
