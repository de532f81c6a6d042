"""Nothing that we run tells anybody of it: no host is looked up, and no file is written outside the job's folders."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cluster.binaries import install_debian
from tests.cluster.errors import ClusterError
from tests.jobimage.claims import Claims

from plimsoll_api.plan import EvaluationRequest, Plan
from plimsoll_api.report import Summary
from plimsoll_job.telemetry import SWITCHES

ROOT = Path(__file__).parents[2]
NETWORK = re.compile(r"\bsin6?_port=htons\((?!0\))")
WRITTEN = re.compile(
    r'\b(?:open|openat|creat|mkdir|mkdirat)\((?:AT_FDCWD, )?"([^"]+)", (?:[^,)]*O_(?:WRONLY|RDWR|CREAT)|0\d+)'
)
SESSION = """
import sys, time
{before}
import onnxruntime
from onnx import TensorProto, helper
values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "graph", values[:1], values[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
time.sleep(12)
"""


@pytest.fixture(scope="module")
def tracer() -> list[str]:
    try:
        install_debian({"strace": "strace"})
    except ClusterError as error:
        pytest.skip(str(error))
    calls = "connect,sendto,sendmsg,sendmmsg,open,openat,creat,mkdir,mkdirat"
    return ["strace", "--follow-forks", "--seccomp-bpf", "--quiet=all", "--signal=none", f"--trace={calls}"]


def looked_up_and_written(trace: Path, inside: Path) -> tuple[list[str], list[str]]:
    """Return the calls that speak to a network, and the paths outside the folder that files were written to."""
    lines = trace.read_text(errors="replace").splitlines()
    written = {match.group(1) for line in lines if " = -1 " not in line and (match := WRITTEN.search(line))}
    outside = {path for path in written if not path.startswith((str(inside), "/dev/", "/proc/self/"))}
    return [line for line in lines if NETWORK.search(line)], sorted(outside)


def traced(tracer: list[str], command: list[str], directory: Path) -> tuple[list[str], list[str]]:
    """Run the command with a home and temporary files in the directory, and return the same of it."""
    for name in ("home", "temporary"):
        (directory / name).mkdir(exist_ok=True)
    left_out = {*SWITCHES, "XDG_CACHE_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in left_out} | {
        "HOME": str(directory / "home"), "TMPDIR": str(directory / "temporary"), "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    done = subprocess.run(
        [*tracer, f"--output={directory / 'trace'}", *command],
        env=environment, cwd=directory, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return looked_up_and_written(directory / "trace", directory)


@pytest.mark.slow
def test_the_tracer_sees_what_onnx_runtime_does_by_itself(tracer: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c"]
    told, _ = traced(tracer, [*command, SESSION.format(before="")], tmp_path)
    if not told or not (found := list((tmp_path / "home").rglob("deviceid"))):
        pytest.skip("this build of ONNX Runtime has no telemetry: there is nothing to switch off")
    for file in found:
        file.unlink()
    assert traced(tracer, [*command, SESSION.format(before="import plimsoll_job")], tmp_path) == ([], [])
    assert not list((tmp_path / "home").rglob("deviceid"))


@pytest.mark.slow
def test_a_job_looks_nothing_up_and_writes_into_its_folders_only(
    tracer: list[str], claims: Claims, tmp_path: Path
) -> None:
    def carried_out(verb: str, document: Plan | EvaluationRequest) -> Summary:
        (tmp_path / verb).write_bytes(document.canonical_json())
        flag = "--plan" if verb == "compress" else "--request"
        command = [
            sys.executable, "-m", "plimsoll_job", verb, flag, str(tmp_path / verb), "--claims", str(claims.directory),
            "--termination-file", str(tmp_path / "ending"),
        ]  # fmt: skip
        assert traced(tracer, command, tmp_path) == ([], [])
        return Summary.model_validate_json((tmp_path / "ending").read_bytes())

    made = carried_out("compress", claims.plan())
    assert made.baseline is not None
    assert made.candidate is not None
    carried_out("evaluate", claims.request(made.baseline, made.candidate))
    assert not list((tmp_path / "home").rglob("*"))


@pytest.mark.parametrize("dockerfile", ["jobimage/Dockerfile", "operator/Dockerfile"])
def test_the_images_have_the_switches_for_whatever_runs_in_them(dockerfile: str) -> None:
    text = (ROOT / dockerfile).read_text()
    assert all(f"{name}={value}" in text for name, value in SWITCHES.items())
