"""torchao by itself: it cannot write ONNX, so what it made is timed in torch, compiled where it is meant to be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.engine.case import Answer, Arrays, Case
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

WEIGHTS, PROGRAM = "model.pt", "model.pt2"


def dynamic(case: Case, folder: Path) -> None:
    """Quantize linear layers, activations when they come; torchao leaves convolutions."""
    import torch  # noqa: PLC0415

    torch.save(_dynamic(case).state_dict(), folder / WEIGHTS)


def static(case: Case, folder: Path) -> None:
    """Quantize by PT2E for its x86 backend, with ranges from the calibration data."""
    import torch  # noqa: PLC0415
    from torchao.quantization.pt2e import quantize_pt2e  # noqa: PLC0415
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86  # noqa: PLC0415

    example = case.example()
    free_batch = tuple({0: torch.export.Dim("batch")} for _ in example)
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    traced = torch.export.export(case.build(), example, dynamic_shapes=free_batch).module()
    prepared = quantize_pt2e.prepare_pt2e(traced, quantizer)
    with torch.no_grad():
        for batch in case.calibration_batches():
            prepared(*batch)
    converted = quantize_pt2e.convert_pt2e(prepared)
    # The float weights stay in the module though nothing reads them: the file would be larger than the float one.
    read = {node.target for node in converted.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in converted.named_parameters() if name not in read]:
        owner, _, leaf = name.rpartition(".")
        delattr(converted.get_submodule(owner), leaf)
    torch.export.save(torch.export.export(converted, example, dynamic_shapes=free_batch), folder / PROGRAM)


def load(case: Case, folder: Path) -> Answer:
    """Return the model as torch answers it."""
    import torch  # noqa: PLC0415

    torch.set_num_threads(case.threads)
    module: Callable[..., torch.Tensor]
    if (folder / WEIGHTS).exists():
        restored = module = _dynamic(case)
        restored.load_state_dict(torch.load(folder / WEIGHTS, weights_only=True), assign=True)
    else:
        # Imported for the operators of quantized programs that it registers.
        import torchao.quantization.pt2e.quantize_pt2e  # noqa: F401, PLC0415

        torch._inductor.config.freezing = True
        # The file is the bench's own, of a moment ago: loading it runs what it says.
        module = torch.compile(torch.export.load(folder / PROGRAM).module())

    def answer(arrays: Arrays) -> NDArray[Any]:
        with torch.no_grad():
            answers: NDArray[Any] = module(*case.tensors(arrays)).numpy()
        return answers

    return answer


def _dynamic(case: Case) -> nn.Module:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_  # noqa: PLC0415

    module = case.build()
    quantize_(module, Int8DynamicActivationInt8WeightConfig())
    return module


VARIANTS = {"Int8DynamicActivationInt8Weight": dynamic, "PT2E static, compiled": static}
