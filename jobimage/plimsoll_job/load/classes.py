"""The names of classes: whether those of a data set stand for the outputs of the model, and in what order."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from plimsoll_api.artifact import ClassNames
from plimsoll_api.data import DataSource
from plimsoll_job.errors import UserError
from plimsoll_job.load.data import Samples

CONFIG_FILE = "config.json"
#: So many names are shown in a message.
MAX_SHOWN = 8


def check_classes_of(
    samples: Samples, source: DataSource, outputs: int, spec_field: str, known: ClassNames | None = None
) -> None:
    """UserError when labels that are numbered by names cannot stand for the model's outputs.

    A folder without one of the classes, or a data set with them in another order, would shift the labels of others.
    `known` are the names that the model's data or configuration gives its outputs; the spec's `classes` overrule them.
    """
    names = list(samples.classes)
    if not names:
        return
    field = f"{spec_field}.classes"
    if len(names) != outputs and source.classes:
        raise UserError(
            f"{field}: lists {len(names)} names, the model has {outputs} outputs; list one for each of them in their "
            "order, also those that no sample has"
        )
    what = f"{source.uri} has {len(names)} classes ({shown(names)})"
    if len(names) != outputs:
        told = f" ({shown(known.names)})" if known else ""
        raise UserError(
            f"{field}: {what}, the model has {outputs} outputs{told}: which of them the labels mean is not known; list "
            "the names of all outputs, in their order"
        )
    if known is None or source.classes or names == known.names:
        return
    same = set(names) == set(known.names)
    if same or known.of == "Data":
        raise UserError(
            f"{field}: {what}, {_WHOSE[known.of]} {'in another order' if same else 'others'} ({shown(known.names)}); "
            "list the names that the labels have, in the order of the model's outputs"
        )


_WHOSE = {"Data": "the data that the model was compressed with has", "Model": "the model has"}


def class_names(
    data: Sequence[tuple[DataSource | None, Samples | None]],
    directory: Mapping[str, bytes],
    outputs: int,
    told: Sequence[str] = (),
) -> ClassNames | None:
    """Return the names of the model's outputs: those of the first data set that has one for each, or the model's own.

    Its own are those that its graph tells, or its config.json.

    None where neither tells.
    """
    for source, samples in data:
        if source is not None and samples is not None and len(samples.classes) == outputs:
            return ClassNames(of="Data", names=list(samples.classes))
    if len(told) == outputs:
        return ClassNames(of="Model", names=list(told))
    try:
        labels = json.loads(directory.get(CONFIG_FILE, b"{}")).get("id2label") or {}
        names = [str(labels[str(number)]) for number in range(outputs)]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    # What transformers writes where nobody named them.
    unnamed = [f"LABEL_{number}" for number in range(outputs)]
    return None if names == unnamed else ClassNames(of="Model", names=names)


def shown(names: Sequence[str]) -> str:
    """Return the first of the names, for a message."""
    return ", ".join(names[:MAX_SHOWN]) + (", …" if len(names) > MAX_SHOWN else "")
