"""The documentation names only what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from plimsoll_api.model import Model
from plimsoll_api.reasons import Reason
from plimsoll_api.release import ModelReleaseSpec
from plimsoll_api.spec import CompressionJobSpec
from plimsoll_operator.metrics import Metrics
from plimsoll_operator.mirror import Mirror

MODELS: dict[str, type[Model]] = {"CompressionJob": CompressionJobSpec, "ModelRelease": ModelReleaseSpec}
ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("tests/*/README.md")]
)


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_files_that_commands_name_are_there(page: Path) -> None:
    for named in re.findall(r"examples/[\w./-]+\.yaml", page.read_text()):
        assert (ROOT / named).is_file(), named


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_our_objects_in_examples_keep_the_contract(page: Path) -> None:
    for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        for document in yaml.safe_load_all(block):
            if isinstance(document, dict) and document.get("kind") in MODELS:
                MODELS[document["kind"]].model_validate(document["spec"])


def test_every_decision_is_listed() -> None:
    index = (ROOT / "docs" / "decisions" / "README.md").read_text()
    records = [path.name for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md")]
    assert records
    assert not [name for name in records if name not in index]
    numbers = [name[:4] for name in records]
    assert len(set(numbers)) == len(numbers)


def test_the_metrics_page_lists_every_metric() -> None:
    page = (ROOT / "docs" / "guide" / "metrics.md").read_text()
    named = set(re.findall(r"^\| `(plimsoll_\w+)`", page, re.MULTILINE))
    families = Metrics(Mirror()).registry.collect()
    there = {f"{f.name}_total" if f.type == "counter" else f.name for f in families}
    assert named == there


def test_reasons_in_the_guide_are_reasons() -> None:
    page = (ROOT / "docs" / "guide" / "troubleshooting.md").read_text()
    named = set(re.findall(r"^\| `([A-Z]\w+)`", page, re.MULTILINE))
    assert named
    assert named <= {reason.value for reason in Reason}


def test_every_make_target_that_is_named_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for named in re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", page.read_text(), re.MULTILINE):
            assert set(named) - {""} <= targets, page
