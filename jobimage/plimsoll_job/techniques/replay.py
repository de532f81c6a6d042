"""A module's changes of structure, done again."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import cast

from torch import nn

from plimsoll_job.load.inputs import Signature
from plimsoll_job.load.model import build_module
from plimsoll_job.load.plain import plain
from plimsoll_job.techniques.factorize.split import split
from plimsoll_job.techniques.prune.coupling import cut
from plimsoll_job.techniques.shape import Change, Cut, Fresh, Split


def replay(module: nn.Module, signature: Signature, changes: Iterable[Change]) -> nn.Module:
    """Return the module in the structure that these changes lead to; its weights are to be loaded after."""
    for kind, run in groupby(changes, key=type):
        if kind is Cut:
            module = cut(module, signature, cast(Iterable[Cut], run))
        elif kind is Fresh:
            module = plain(build_module(cast(Fresh, list(run)[-1]).architecture)[0])
        else:
            module = split(module, cast(Iterable[Split], run))
    return module
