"""`plimsoll validate` says all that is wrong, with the line of each field, and imports nothing heavy."""

import subprocess
import sys
from pathlib import Path

import pytest

from plimsoll_cli.__main__ import main

GOOD = """\
apiVersion: plimsoll.dev/v1alpha1
kind: CompressionJob
metadata: {name: digits-cnn}
spec:
  model:
    uri: pvc://models/digits-cnn
    architecture: {factory: "plimsoll_job.zoo:digits_cnn"}
  task: ImageClassification
  data:
    evaluation: {uri: pvc://data/test.npz}
  steps:
  - prune: {criterion: Magnitude, amount: 60%}
  gates:
  - {metric: accuracy, maxRegression: 2%}
  output: {uri: pvc://models/out}
"""


def validate(tmp_path: Path, text: str) -> int:
    file = tmp_path / "job.yaml"
    file.write_text(text)
    return main(["validate", str(file)])


def test_a_good_job_is_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate(tmp_path, GOOD) == 0
    assert "CompressionJob digits-cnn is right" in capsys.readouterr().out


def test_every_problem_is_said_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = GOOD.replace("60%", "0.6").replace("ImageClassification", "ImageClasification").replace("2%", "200%")
    assert validate(tmp_path, text) == 64
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1] for line in said] == ["8", "12", "14"]
    assert "did you mean ImageClassification" in said[0]
    assert "spec.steps[0].prune.amount" in said[1]
    assert "spec.gates[0].maxRegression" in said[2]


def test_problems_of_all_files_and_documents_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release = "---\napiVersion: plimsoll.dev/v1alpha1\nkind: ModelRelease\nmetadata: {name: digits}\nspec: {pined: 1}\n"
    assert validate(tmp_path, GOOD.replace("kind: Comp", "kind: Kompp") + release) == 64
    said = capsys.readouterr().err
    assert "must be one of CompressionJob" in said
    assert "job.yaml:20: spec.pined: is no field" in said


def test_objects_of_other_groups_are_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate(tmp_path, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n") == 0
    assert "passed over" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "job.yaml:1: is no YAML"),
        ("a: b: c", "job.yaml:1: is no YAML"),
        ("apiVersion: plimsoll.dev/v1alpha1\nkind: ModelRelease\nkind: ModelRelease", "kind stands here twice"),
    ],
)
def test_what_is_no_yaml_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str) -> None:
    assert validate(tmp_path, text) == 64
    assert says in capsys.readouterr().err


def test_an_empty_file_holds_nothing_of_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate(tmp_path, "") == 0
    assert "holds nothing of plimsoll.dev/v1alpha1" in capsys.readouterr().out


def test_all_documents_of_a_file_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate(tmp_path, f"{GOOD}---\n{GOOD}") == 0
    assert capsys.readouterr().out.count("CompressionJob digits-cnn is right") == 2
    assert validate(tmp_path, f"{GOOD}---\n{GOOD}  seed: -1\n") == 64
    assert "job.yaml:32: spec.seed: must be at least 0, got -1" in capsys.readouterr().err


def test_a_missing_file_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(tmp_path / "none.yaml")]) == 64
    assert "none.yaml" in capsys.readouterr().err


def test_validate_imports_neither_torch_nor_kubernetes() -> None:
    script = (
        "import sys; from plimsoll_cli.__main__ import main; main(['validate', '/dev/null']); "
        "print([m for m in ('torch', 'numpy', 'onnxruntime', 'kopf', 'kubernetes', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
