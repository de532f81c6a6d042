"""The models of timm's registry with their parameters: counted once for each version of timm, and kept."""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import asdict, dataclass

from bench.child import ROOT

#: Counting is told about this often, in models.
TOLD_EVERY = 100


@dataclass(frozen=True)
class Counted:
    """A model of timm's, the module of timm that defines it, and its parameters; None where it cannot be made."""

    name: str
    family: str
    parameters: int | None


def timm_models() -> list[Counted]:
    """Return all models of timm's registry; the first call for a version of timm takes minutes, and says so."""
    import timm  # noqa: PLC0415 — seconds

    file = ROOT / "build" / f"timm-{timm.__version__}.json"
    if file.exists():
        return [Counted(**one) for one in json.loads(file.read_text())]
    found: list[Counted] = []
    families = {name: module for module in timm.list_modules() for name in timm.list_models(module=module)}
    for name, family in families.items():
        if len(found) % TOLD_EVERY == 0:
            print(f"counts the parameters of timm's models: {len(found)} of {len(families)}", file=sys.stderr)
        found.append(Counted(name, family, _parameters(name)))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([asdict(one) for one in found], indent=0))
    return found


def _parameters(name: str) -> int | None:
    import timm  # noqa: PLC0415 — as above
    import torch  # noqa: PLC0415

    # Some constructors compute with numbers that the meta device does not have, or lack a package.
    for device in ("meta", "cpu"):
        try:
            with warnings.catch_warnings(), torch.device(device):
                warnings.simplefilter("ignore")
                module = timm.create_model(name)
        except Exception:  # noqa: S112 — whatever a constructor raises
            continue
        return sum(parameter.numel() for parameter in module.parameters())
    return None
