"""Modules that torchvision or timm builds by name, without their weights: nothing is downloaded."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable
from typing import Any

from torch import nn

from plimsoll_api.spec import NamedArchitecture
from plimsoll_job.boundary import check_passing
from plimsoll_job.errors import UserError

#: Heads that only training reads. The modules are built without them, and their weights are passed over.
TORCHVISION_TRAINING_HEADS = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
NAMES_SHOWN = 4


def build_torchvision(named: NamedArchitecture) -> tuple[nn.Module, tuple[str, ...]]:
    """Return torchvision's classification module, and prefixes of weights that serve training only."""
    # A second of imports that other architectures do without.
    from torchvision import models  # noqa: PLC0415

    field = "spec.model.architecture.torchvision"
    known = models.list_models(module=models)
    if named.name not in known:
        raise _unknown(field, named.name, known, "classification constructor of torchvision")
    unread = TORCHVISION_TRAINING_HEADS.get(named.name, ())
    options: dict[str, Any] = {"aux_logits": False, "init_weights": False} if unread else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _build(
            field, named, options, lambda **given: models.get_model(named.name, weights=None, **given)
        ), unread


def build_timm(named: NamedArchitecture) -> nn.Module:
    """Return timm's module, of layers that can be exported."""
    import timm  # noqa: PLC0415 — as above

    field = "spec.model.architecture.timm"
    if not timm.is_model(named.name):
        raise _unknown(field, named.name, timm.list_models(), "constructor of timm")
    return _build(field, named, {"exportable": True}, lambda **given: timm.create_model(named.name, **given))


def _build(field: str, named: NamedArchitecture, options: dict[str, Any], constructor: Any) -> nn.Module:
    if named.classes is not None:
        options = options | {"num_classes": named.classes}
    # A constructor that lacks a package or an option raises whatever its library chose.
    try:
        module: nn.Module = constructor(**options)
    except Exception as error:
        check_passing(error)
        raise UserError(f"{field}: {named.name} cannot be built: {error}") from error
    return module


def _unknown(field: str, name: str, known: Iterable[str], what: str) -> UserError:
    near = difflib.get_close_matches(name, list(known), n=NAMES_SHOWN, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return UserError(f"{field}.name: {name!r} is no {what}{hint}")
