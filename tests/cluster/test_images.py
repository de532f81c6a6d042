"""The images that docker builds, and that those the cluster runs hold the same."""

from __future__ import annotations

from typing import Any

import pytest
from tests.cluster.docker_build import built_contents
from tests.cluster.inventory import take_inventory
from tests.cluster.project_images import JOB, OPERATOR, PROJECT_IMAGES, ProjectImage, site_folders

pytestmark = [pytest.mark.images, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def built() -> dict[str, dict[str, Any]]:
    return built_contents()


@pytest.mark.parametrize("image", PROJECT_IMAGES, ids=lambda image: image.module)
def test_the_cluster_runs_what_docker_builds(built: dict[str, dict[str, Any]], image: ProjectImage) -> None:
    fast = take_inventory([str(folder) for folder in site_folders(image)])
    assert fast["packages"] == built[image.module]["packages"]
    assert fast["files"] == built[image.module]["files"]
    assert fast["files"], "the project itself is not in the image"


@pytest.mark.parametrize("image", PROJECT_IMAGES, ids=lambda image: image.module)
def test_an_image_runs_as_nobody_in_particular(built: dict[str, dict[str, Any]], image: ProjectImage) -> None:
    assert built[image.module]["user"] == "65532 65532"


def test_the_operator_holds_no_engine_and_the_job_image_no_cluster_client(built: dict[str, dict[str, Any]]) -> None:
    assert not {"torch", "onnxruntime", "numpy"} & built[OPERATOR.module]["packages"].keys()
    assert not {"kopf", "kubernetes", "aiohttp"} & built[JOB.module]["packages"].keys()
    for image in PROJECT_IMAGES:
        assert not {"pip", "uv", "hatchling"} & built[image.module]["packages"].keys()
