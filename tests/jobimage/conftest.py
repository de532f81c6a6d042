"""A small real model and its data, trained once: scikit-learn's wines, in parquet."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

# Read when torch is loaded; see plimsoll_job/__main__.py.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch
from tests.jobimage.claims import Claims, prepare_wine
from tests.jobimage.haswell import Haswell, Serve, here, why_not

from plimsoll_job.compress import make_deterministic
from plimsoll_job.load.store import Store
from plimsoll_job.memory import set_imports_aside


@pytest.fixture(autouse=True, scope="session")
def _as_in_a_pod() -> Iterator[None]:
    torch.set_num_threads(1)
    make_deterministic()
    yield
    gc.unfreeze()  # or extensions call all that was set aside a leak


@pytest.fixture(autouse=True, scope="module")
def _imports_aside() -> None:
    """As a pod has them; what tests import on their way comes on top: every search for circles went through it all."""
    set_imports_aside()


@pytest.fixture(scope="session")
def wine_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wine")
    prepare_wine(directory)
    return directory


@pytest.fixture
def claims(wine_source: Path, tmp_path: Path) -> Claims:
    """Claims of a test's own: the wine model and its data, and an empty output."""
    return Claims.copy_of(wine_source, tmp_path / "claims")


@pytest.fixture
def store(claims: Claims) -> Store:
    return Store(claims=claims.directory)


@pytest.fixture(scope="session")
def haswell() -> Iterator[Haswell]:
    """A processor without VNNI, whatever this machine has."""
    if why := why_not():
        pytest.skip(why)
    processor = Haswell()
    yield processor
    processor.close()


@pytest.fixture(params=["here", pytest.param("Haswell", marks=pytest.mark.slow)])
def serve(request: pytest.FixtureRequest) -> Serve:
    """Answers of a graph on this machine's processor, and on one without VNNI: each test that asks runs on both."""
    on_haswell: Serve = here if request.param == "here" else request.getfixturevalue("haswell")
    return on_haswell
