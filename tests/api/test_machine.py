"""Two machines are of one kind where what decides answers and times is the same."""

import pytest

from plimsoll_api.machine import Machine

HERE = Machine(processor="a", instruction_sets=["avx2", "avx512_vnni"], threads=2, runtime="onnxruntime 1.31")


@pytest.mark.parametrize(
    ("changes", "differences"),
    [
        ({}, []),
        ({"processor": "b"}, []),
        ({"instruction_sets": ["avx512_vnni", "avx2"]}, []),
        ({"instruction_sets": ["avx2"]}, ["without avx512_vnni"]),
        ({"instruction_sets": ["avx2", "amx_int8"]}, ["without avx512_vnni", "with amx_int8"]),
        ({"gpu": "H200"}, ["on H200 instead of the processor"]),
        ({"threads": 4}, ["with 4 threads instead of 2"]),
        ({"runtime": "onnxruntime 1.32"}, ["by onnxruntime 1.32 instead of onnxruntime 1.31"]),
        ({"instruction_sets": [], "runtime": ""}, []),
    ],
)
def test_what_differs_is_told_in_words(changes: dict[str, object], differences: list[str]) -> None:
    assert HERE.differences(HERE.model_copy(update=changes)) == differences
