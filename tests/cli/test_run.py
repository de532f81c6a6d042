"""`plimsoll run` goes the way of a job in two real processes, and its exit code tells the verdict."""

import errno
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from plimsoll_api.report import Report
from plimsoll_cli.__main__ import main
from plimsoll_job.zoo import wine_mlp

JOB = """\
apiVersion: plimsoll.dev/v1alpha1
kind: CompressionJob
metadata: {{name: small}}
spec:
  model:
    uri: pvc://models/small.safetensors
    architecture: {{factory: "plimsoll_job.zoo:wine_mlp"}}
  task: TabularClassification
  data:
    evaluation: {{uri: pvc://data/test.npz}}
    calibration: {{uri: pvc://data/calibration.npz}}
  steps:
  - prune: {{criterion: Magnitude, amount: 30%}}
  evaluation: {{latency: {{batchSizes: [1], rounds: 8, processes: 2}}}}
  gates:
  - {gate}
  output: {{uri: pvc://models/out}}
"""


@pytest.fixture
def claims(tmp_path: Path) -> dict[str, Path]:
    torch.manual_seed(0)
    mounts = {claim: tmp_path / claim for claim in ("models", "data")}
    for path in mounts.values():
        path.mkdir()
    module = wine_mlp().eval()
    save_file(module.state_dict(), mounts["models"] / "small.safetensors")
    features = next(parameter for parameter in module.parameters() if parameter.dim() == 2).shape[1]
    for name, seed in (("test", 1), ("calibration", 2)):
        inputs = np.random.default_rng(seed).normal(size=(400, features)).astype(np.float32)
        with torch.no_grad():
            labels = module(torch.from_numpy(inputs)).argmax(1).numpy()
        np.savez(mounts["data"] / f"{name}.npz", inputs=inputs, labels=labels)
    return mounts


def run(tmp_path: Path, claims: dict[str, Path], gate: str, **replaced: str) -> int:
    text = JOB.format(gate=gate)
    for old, new in replaced.items():
        text = text.replace(old, new)
    file = tmp_path / "job.yaml"
    file.write_text(text)
    mounts = [f"--mount={claim}={path}" for claim, path in claims.items()]
    return main(["run", str(file), *mounts, "--report", str(tmp_path / "made" / "report.json")])


def test_a_passing_job_ends_with_0_and_leaves_report_and_artifact(
    tmp_path: Path, claims: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, claims, "{metric: parameters, minReduction: 20%}") == 0
    report = Report.model_validate(json.loads((tmp_path / "made" / "report.json").read_text()))
    assert report.candidate is not None
    assert report.baseline is not None
    assert report.candidate.parameters < 0.8 * report.baseline.parameters
    directory = claims["models"] / report.candidate.artifact.uri.removeprefix("pvc://models/")
    assert (directory / "model.onnx").is_file()
    peaks = [report.compression_peak_memory_bytes or 0, report.environment.peak_memory_bytes]
    told = re.search(r"^memory +compress ([\d,]+) MiB, evaluate ([\d,]+) MiB at most$", capsys.readouterr().out, re.M)
    assert told is not None
    assert [int(number.replace(",", "")) for number in told.groups()] == [-(-peak // (1 << 20)) for peak in peaks]
    assert min(peaks) > 50_000_000


@pytest.mark.slow
def test_a_failing_gate_ends_with_1_and_says_why(
    tmp_path: Path, claims: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, claims, "{metric: parameters, minReduction: 90%}") == 1
    shown = capsys.readouterr().out
    assert "parameters-minReduction" in shown
    assert "Fail" in shown


@pytest.mark.slow
def test_a_gate_that_cannot_be_decided_ends_with_3(tmp_path: Path, claims: dict[str, Path]) -> None:
    gate = '{metric: accuracy, maxRegression: 2%, confidence: "0.999999"}'
    small = np.load(claims["data"] / "test.npz")
    np.savez(claims["data"] / "test.npz", inputs=small["inputs"][:20], labels=small["labels"][:20])
    assert run(tmp_path, claims, gate) == 3


def test_a_wrong_request_ends_with_64_and_names_the_field(
    tmp_path: Path, claims: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, claims, "{metric: size, maxRatio: 1}", **{"data/test.npz": "data/none.npz"}) == 64
    told = capsys.readouterr()
    assert told.err.count("spec.data.evaluation") == 1
    assert "spec.data.evaluation" not in told.out


def test_missing_mounts_are_said_before_anything_runs(
    tmp_path: Path, claims: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, {}, "{metric: size, maxRatio: 1}") == 64
    assert "--mount data=DIR --mount models=DIR" in capsys.readouterr().err
    assert not (claims["models"] / "out").exists()


@pytest.mark.parametrize(
    ("place", "why"),
    [("models", "it is a directory"), ("data/test.npz/report.json", "test.npz: (Not a directory|File exists)")],
)
def test_a_report_that_cannot_be_written_is_told_before_anything_runs(
    tmp_path: Path, claims: dict[str, Path], capsys: pytest.CaptureFixture[str], place: str, why: str
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(JOB.format(gate="{metric: size, maxRatio: 1}"))
    mounts = [f"--mount={claim}={path}" for claim, path in claims.items()]
    assert main(["run", str(file), *mounts, "--report", str(tmp_path / place)]) == 64
    assert re.search(f"--report .* cannot be written: .*{why}", capsys.readouterr().err)
    assert not (claims["models"] / "out").exists()


def test_the_verdict_is_shown_before_a_report_that_finds_no_room(
    tmp_path: Path, claims: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name == "report.json" and path.parent.name == "made":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert run(tmp_path, claims, "{metric: parameters, minReduction: 20%}") == 75
    shown = capsys.readouterr()
    assert "Pass" in shown.out
    assert "cannot be written: No space left on device" in shown.err


def test_the_claim_of_a_teacher_is_asked_for(
    tmp_path: Path, claims: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = "{uri: pvc://teachers/large, architecture: {factory: 'a:b'}}"
    replaced = {
        "calibration:": "train:",
        "prune: {criterion: Magnitude, amount: 30%}": f"distill: {{epochs: 1, teacher: {teacher}}}",
    }
    assert run(tmp_path, claims, "{metric: size, maxRatio: 1}", **replaced) == 64
    assert "add --mount teachers=DIR" in capsys.readouterr().err


def test_a_mount_that_is_no_directory_is_a_usage_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "plimsoll_cli", "run", "job.yaml", "--mount", f"data={tmp_path}/none"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is not a directory" in done.stderr


def test_a_report_of_an_earlier_run_is_kept_and_told(
    tmp_path: Path, claims: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "made"
    made.mkdir()
    (made / "report.json").write_text("of the week before")
    (made / "report.1.json").write_text("of the month before")
    assert run(tmp_path, claims, "{metric: parameters, minReduction: 20%}") == 0
    assert {path.name: path.read_text()[:7] for path in made.iterdir()} == {
        "report.json": '{"basel', "report.1.json": "of the ", "report.2.json": "of the ",
    }  # fmt: skip
    assert (made / "report.2.json").read_text() == "of the week before"
    assert f"{made}/report.json of an earlier run is now {made}/report.2.json" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["validate", "--help"]])
def test_help_tells_the_default_of_every_option(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    text = " ".join(capsys.readouterr().out.split())
    assert text.count("(default: ") == len(set(re.findall(r" (--[a-z-]+)", text)) - {"--help", "--version"})


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert re.fullmatch(r"plimsoll \d+\.\d+\.\d+\n", capsys.readouterr().out)
