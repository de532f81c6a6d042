"""Another teacher, and a fresh student of another architecture."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.jobimage.claims import DISTILL, Claims, published
from torch import nn

from plimsoll_api.model import digest_of
from plimsoll_api.report import Summary
from plimsoll_job import compress as flow
from plimsoll_job.errors import UserError
from plimsoll_job.load.plan import load_plan
from plimsoll_job.load.store import Store
from plimsoll_job.progress import Reporter
from plimsoll_job.techniques.table import TECHNIQUES
from plimsoll_job.work import Work
from plimsoll_job.zoo import wine_mlp

ROLES = "tests.jobimage.test_distill_roles"
PRUNE = {"prune": {"criterion": "Magnitude", "amount": "20%"}}


def small_mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(13, 40), nn.ReLU(), nn.Dropout(0.1), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 3))


def two_classes() -> nn.Module:
    return nn.Linear(13, 2)


def of_images() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(13, 3))


def learn(**settings: Any) -> dict[str, Any]:
    return {"distill": {**DISTILL["distill"], **settings}}


def compressed(claims: Claims, *steps: dict[str, Any]) -> Summary:
    plan = claims.plan(list(steps))
    summary = flow.compress(plan, Store(claims=claims.directory), Reporter(emit=lambda _: None))
    torch.set_num_threads(1)
    return summary


def student_of(name: str) -> dict[str, str]:
    return {"factory": f"{ROLES}:{name}"}


@pytest.fixture
def teacher(claims: Claims) -> dict[str, Any]:
    """A teacher that takes every wine for one of the second kind."""
    torch.manual_seed(3)
    module = wine_mlp()
    last = module.get_submodule("layers.5")
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.bias[1] += 20
    path = claims.directory / "models" / "other"
    path.mkdir()
    save_file(module.state_dict(), path / "model.safetensors")
    return {"uri": "pvc://models/other", "architecture": {"factory": "plimsoll_job.zoo:wine_mlp"}}


def classes_of(claims: Claims, *steps: dict[str, Any]) -> list[int]:
    """Return what the candidate takes some wines for, after all steps but the last, as the work directory has it."""
    plan = claims.plan(list(steps))
    store = Store(claims=claims.directory)
    loaded = load_plan(plan, store, Reporter(emit=lambda _: None))
    candidate, _ = flow.take_steps(
        plan, loaded, Work(flow.work_directory(plan, store), loaded.signature), lambda *_: None,  # type: ignore[arg-type]
        Reporter(emit=lambda _: None),
    )  # fmt: skip
    assert loaded.train is not None
    with torch.no_grad():
        found: list[int] = candidate.module(torch.from_numpy(loaded.train.inputs["inputs"])).argmax(1).tolist()
    return found


def test_the_model_learns_what_another_teacher_knows(claims: Claims, teacher: dict[str, Any]) -> None:
    assert set(classes_of(claims, learn(epochs=5))) == {0, 1, 2}
    assert set(classes_of(claims, learn(epochs=5, teacher=teacher))) == {1}


def test_the_record_names_the_teacher(claims: Claims, teacher: dict[str, Any]) -> None:
    weights = (claims.directory / "models" / "other" / "model.safetensors").read_bytes()
    summary = compressed(claims, learn(epochs=1, teacher=teacher | {"digest": digest_of(weights)}))
    (step,) = published(claims, summary.candidate)["lineage"]["steps"]
    assert step["details"]["teacher"] == {
        "asked": "Once", "architecture": "plimsoll_job.zoo:wine_mlp", "digest": digest_of(weights),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"digest": "sha256:" + "0" * 64}, r"spec.steps\[0\].distill.teacher.digest: .* has the digest sha256:"),
        ({"uri": "pvc://models/none"}, r"spec.steps\[0\].distill.teacher.uri: there is no file pvc://models/none"),
        ({"architecture": {"factory": f"{ROLES}:nothing"}},
         r"spec.steps\[0\].distill.teacher.architecture.factory: .* has no function 'nothing'"),
        ({"architecture": {"factory": f"{ROLES}:small_mlp"}},
         r"spec.steps\[0\].distill.teacher.uri: the weights do not fit the module"),
    ],
)  # fmt: skip
def test_a_wrong_teacher_is_told_before_any_work(
    claims: Claims, teacher: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        compressed(claims, learn(teacher=teacher | changes))
    assert not list((claims.directory / "out").iterdir())


def test_a_teacher_of_other_classes_is_refused(claims: Claims) -> None:
    save_file(two_classes().state_dict(), claims.directory / "models" / "two.safetensors")
    teacher = {"uri": "pvc://models/two.safetensors", "architecture": {"factory": f"{ROLES}:two_classes"}}
    with pytest.raises(UserError, match=r"distill.teacher: answers a sample with \[2\] numbers, spec.model with \[3\]"):
        compressed(claims, learn(teacher=teacher))


def test_a_fresh_student_takes_the_place_of_the_model(claims: Claims) -> None:
    summary = compressed(claims, learn(epochs=60, student=student_of("small_mlp")))
    manifest = published(claims, summary.candidate)
    (step,) = manifest["lineage"]["steps"]
    assert manifest["parameters"] == step["parametersAfter"] == 14 * 40 + 41 * 40 + 41 * 3
    assert step["parametersBefore"] > 2 * step["parametersAfter"]
    assert step["settings"]["student"] == student_of("small_mlp")
    assert step["details"]["loss"][-1] < 0.2 * step["details"]["loss"][0]


class Killed(BaseException):
    """The pod dies."""


def die(*_: Any) -> Any:
    raise Killed


@pytest.mark.slow
@pytest.mark.parametrize("deadly", ["prune", "quantize"])
def test_a_killed_run_goes_on_with_the_student(
    claims: Claims, wine_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deadly: str
) -> None:
    steps = [learn(student=student_of("small_mlp")), PRUNE, {"quantize": {"scheme": "Int8Static"}}]
    undisturbed = compressed(Claims.copy_of(wine_source, tmp_path / "undisturbed"), *steps)
    with monkeypatch.context() as patched:
        patched.setitem(TECHNIQUES, deadly, die)
        with pytest.raises(Killed):
            compressed(claims, *steps)
    monkeypatch.setitem(TECHNIQUES, "distill", die)
    assert compressed(claims, *steps) == undisturbed


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("two_classes", r"spec.steps\[0\].distill.student: answers a sample with \[2\] numbers, spec.model with \[3\]"),
        ("of_images", r"spec.steps\[0\].distill.student: refuses the inputs of spec.model: "),
        ("nothing", r"spec.steps\[0\].distill.student.factory: .* has no function 'nothing'"),
    ],
)
def test_a_wrong_student_is_told_before_any_work(claims: Claims, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        compressed(claims, learn(student=student_of(name)))
    assert not list((claims.directory / "out").iterdir())


def test_the_weights_of_a_student_follow_from_the_seed(claims: Claims, wine_source: Path, tmp_path: Path) -> None:
    step = learn(epochs=1, student=student_of("small_mlp"))
    other = Claims.copy_of(wine_source, tmp_path / "other")
    torch.manual_seed(99)
    first = compressed(claims, step)
    assert first.candidate == compressed(other, step).candidate
