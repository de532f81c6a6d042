"""What sentence-transformers does to texts before the tokenizer: sentence_bert_config.json, read without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plimsoll_api.artifact import SENTENCE_FILE
from plimsoll_job.errors import UserError

FIELD = "spec.model.uri"
#: What newer releases write besides, where it stands for what every model of texts does: any other value is unknown.
PLAIN: Mapping[str, Any] = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
    "processing_kwargs": {},
    "unpad_inputs": False,
}


@dataclass(frozen=True)
class Sentences:
    """How texts are prepared: cut to so many tokens, as many as the data says when None; in lower case or as given."""

    most_tokens: int | None = None
    lower_case: bool = False

    @classmethod
    def of(cls, files: Mapping[str, bytes]) -> Sentences:
        """Return what the file among those beside a model says; UserError for a setting that is not known."""
        if SENTENCE_FILE not in files:
            return cls()
        try:
            settings = json.loads(files[SENTENCE_FILE])
        except ValueError as error:
            raise _wrong(f"is not JSON: {error}") from error
        if not isinstance(settings, dict):
            raise _wrong("holds no map of settings")
        most_tokens, lower_case = settings.pop("max_seq_length", None), settings.pop("do_lower_case", False)
        if most_tokens is not None and (type(most_tokens) is not int or most_tokens < 1):
            raise _wrong(f"has the max_seq_length {most_tokens!r}, expected a number of tokens, or null")
        if not isinstance(lower_case, bool):
            raise _wrong(f"has the do_lower_case {lower_case!r}, expected true or false")
        if unknown := sorted(key for key, value in settings.items() if value is not None and PLAIN.get(key) != value):
            given = ", ".join(f"{key}: {json.dumps(settings[key])}" for key in unknown)
            raise _wrong(
                f"sets {given}, which is not known here; expected max_seq_length and do_lower_case only; for anything "
                "else, put a class into a job image and name it in spec.model.architecture.factory"
            )
        return cls(most_tokens, lower_case)

    def length(self, wanted: int) -> int:
        """Return the tokens of a sample where the data wants so many."""
        return wanted if self.most_tokens is None else min(wanted, self.most_tokens)

    def prepared(self, texts: Sequence[Any]) -> Sequence[Any]:
        """Return the texts, pairs of texts or lists of words as the tokenizer takes them."""
        if not self.lower_case:
            return texts
        return [one.lower() if isinstance(one, str) else type(one)(part.lower() for part in one) for one in texts]


def _wrong(what: str) -> UserError:
    return UserError(f"{FIELD}: {SENTENCE_FILE} {what}")
