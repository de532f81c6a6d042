"""The example's model server follows the pointer, verifies what it loads, and keeps the old model otherwise."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
import onnx
import pytest
import yaml

MANIFEST = Path(__file__).parents[2] / "examples" / "digits" / "server.yaml"


def write_artifact(claims: Path, name: str, answer: int, requires: Sequence[str] = ()) -> tuple[str, str]:
    """Write a model that always answers the same class; return its URI and digest."""
    folder = claims / "models" / name
    folder.mkdir(parents=True)
    weights = numpy.zeros((4, 3), numpy.float32)
    bias = numpy.eye(3, dtype=numpy.float32)[answer]
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["inputs", "weights", "bias"], ["logits"])],
        "constant",
        [helper.make_tensor_value_info("inputs", onnx.TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 3])],
        [onnx.numpy_helper.from_array(weights, "weights"), onnx.numpy_helper.from_array(bias, "bias")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "model.onnx"
    )
    files = [{"path": "model.onnx", "digest": digest((folder / "model.onnx").read_bytes())}]
    (folder / "manifest.json").write_text(json.dumps({"files": files, "requires": list(requires)}))
    return f"pvc://models/{name}", digest((folder / "manifest.json").read_bytes())


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Server:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.pointer = root / "pointer"
        self.claims = root / "claims"
        self.cpu_info = root / "cpuinfo"
        self.cpu_info.write_text("flags : fpu avx2")
        self.pointer.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def point(self, revision: int, uri: str, digest: str) -> None:
        for key, value in {"uri": uri, "digest": digest, "revision": str(revision)}.items():
            (self.pointer / key).write_text(value)

    def ask(self, path: str, body: object = None) -> tuple[int, Any]:
        content = json.dumps(body).encode() if body else None
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", content, timeout=10) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def wait(self, until: Callable[[int, Any], bool]) -> Any:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                status, body = self.ask("/")
                if until(status, body):
                    return body
            except OSError:
                pass
            time.sleep(0.1)
        raise AssertionError("the server did not get there in 20 s")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    config = next(d for d in yaml.safe_load_all(MANIFEST.read_text()) if d["kind"] == "ConfigMap")
    (tmp_path / "server.py").write_text(config["data"]["server.py"])
    server = Server(tmp_path)
    environment = {
        **os.environ, "POINTER": str(server.pointer), "CLAIMS": str(server.claims), "PORT": str(server.port),
        "CPU_INFO": str(server.cpu_info),
    }  # fmt: skip
    process = subprocess.Popen([sys.executable, tmp_path / "server.py"], env=environment)
    yield server
    process.terminate()
    assert process.wait(10) == 0


def test_it_is_not_ready_before_the_first_release_and_then_follows(server: Server) -> None:
    server.wait(lambda status, _: status == 503)
    first, second = write_artifact(server.claims, "a", 0), write_artifact(server.claims, "b", 2)
    server.point(1, *first)
    assert server.wait(lambda _, body: body.get("revision") == "1")["digest"] == first[1]
    assert server.ask("/predict", {"inputs": [[0, 0, 0, 0]]}) == (200, {"classes": [0], "revision": "1"})
    server.point(2, *second)
    server.wait(lambda _, body: body.get("revision") == "2")
    assert server.ask("/predict", {"inputs": [[0, 0, 0, 0]]}) == (200, {"classes": [2], "revision": "2"})
    server.point(1, *first)
    server.wait(lambda _, body: body.get("revision") == "1")


def test_a_damaged_model_never_takes_over(server: Server) -> None:
    first, second = write_artifact(server.claims, "a", 0), write_artifact(server.claims, "b", 2)
    server.point(1, *first)
    server.wait(lambda _, body: body.get("revision") == "1")
    model = server.claims / "models" / "b" / "model.onnx"
    model.write_bytes(model.read_bytes() + b"x")
    server.point(2, *second)
    time.sleep(2.5)
    assert server.ask("/")[1]["revision"] == "1"


@pytest.mark.parametrize(("has", "serves"), [("flags : fpu avx2 avx512_vnni", "2"), ("flags : fpu avx2", "1")])
def test_a_model_that_the_processor_would_answer_wrong_with_never_takes_over(
    server: Server, has: str, serves: str
) -> None:
    server.cpu_info.write_text(has)
    first, second = write_artifact(server.claims, "a", 0), write_artifact(server.claims, "b", 2, requires=["Vnni"])
    server.point(1, *first)
    server.wait(lambda _, body: body.get("revision") == "1")
    server.point(2, *second)
    time.sleep(2.5)
    assert server.ask("/")[1]["revision"] == serves


def test_a_wrong_request_is_answered_as_such(server: Server) -> None:
    server.point(1, *write_artifact(server.claims, "a", 0))
    server.wait(lambda _, body: body.get("revision") == "1")
    status, body = server.ask("/predict", {"inputs": [[1, 2]]})
    assert status == 400
    assert "error" in body
