"""Conversion of a model to each runtime: a call without arguments on the images it is given, and the model's bytes.

Each takes the model in eval mode and a Wish, and returns a call that computes whatever the wish's images then hold.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lowrank_bench.measurement.exports import Exports

Run = Callable[[], Tensor | NDArray[Any]]


@dataclass(frozen=True)
class Wish:
    """What a model is converted for: a buffer of images (N, C, H, W), a number of threads, images (M, C, H, W) that
    calibrate where values are quantized, and where ONNX files come from.
    """

    images: Tensor
    threads: int
    calibration: Tensor
    exports: Exports
    reference: Tensor


def lay_out(model: nn.Module, layout: torch.memory_format) -> None:
    """Put the weights into a layout, in place; in channels_last those of four axes: the cores of a tensor train have
    five and no such layout, which ``Module.to`` would refuse.
    """
    for weight in (*model.parameters(), *model.buffers()):
        if weight.dim() == 4 or layout is torch.contiguous_format:
            weight.data = weight.data.contiguous(memory_format=layout)


def to_eager(model: nn.Module, wish: Wish) -> tuple[Run, int]:
    """Torch as it is, with the layout of the images."""
    return _bound(model, wish.images), _weight_bytes(model)


def to_eager_nhwc(model: nn.Module, wish: Wish) -> tuple[Run, int]:
    """Torch as it is, weights in channels_last as the images are."""
    lay_out(model, torch.channels_last)
    return _bound(model, wish.images), _weight_bytes(model)


def to_compiled(model: nn.Module, wish: Wish) -> tuple[Run, int]:
    """torch.compile with inductor, weights frozen."""

    def forward(images: Tensor) -> Tensor:
        output: Tensor = model(images)
        return output

    # Dynamo keeps what it compiled by code object, and falls back to eager after 8 models of one class: an own object
    # for each model keeps them apart. fullgraph turns any other fallback into an error.
    forward.__code__ = forward.__code__.replace()
    run = _bound(torch.compile(forward, fullgraph=True, dynamic=False), wish.images)
    # torch.compile(options={"freezing": True}) compiles without freezing (torch 2.15): Dynamo asks the global setting.
    import torch._inductor.config as inductor

    with inductor.patch(freezing=True):
        run()
    return run, _weight_bytes(model)


def to_onnxruntime(model: nn.Module, wish: Wish) -> tuple[Run, int]:
    """ONNX Runtime in float32."""
    return _session(model, wish.exports.onnx(model, wish.images), wish)


def to_onnxruntime_int8(model: nn.Module, wish: Wish) -> tuple[Run, int]:
    """ONNX Runtime with weights in int8, one scale per channel, and activations in uint8 over the range that they take
    on the calibration images: static quantization, as its own quantizer does it.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    exported = onnx.load_model_from_string(wish.exports.onnx(model, wish.images))
    name = exported.graph.input[0].name

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # without the extra it has no type
        def __init__(self) -> None:
            self.batches = _batches(wish.calibration, len(wish.images))

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {name: batch.contiguous().numpy()}

    with tempfile.TemporaryDirectory() as folder, _no_warnings():  # of a preparation that the exporter has done
        path = Path(folder) / "int8.onnx"
        quantize_static(
            exported,
            str(path),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
        )
        file = path.read_bytes()
    return _session(model, file, wish)


def to_openvino(model: nn.Module, wish: Wish) -> tuple[Run, int]:
    """OpenVINO in float32; its own default is bfloat16 wherever the processor has it."""
    return _request(model, wish, "f32")


def to_openvino_bf16(model: nn.Module, wish: Wish) -> tuple[Run, int]:
    """OpenVINO with convolutions and matrix products in bfloat16."""
    return _request(model, wish, "bf16")


def _session(model: nn.Module, file: bytes, wish: Wish) -> tuple[Run, int]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = wish.threads, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    # Between calls, this session's threads would spin on the cores on which the other model is being timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    reference = wish.reference.numpy()  # whatever its strides are: the session writes one row after another
    arrays: list[NDArray[Any]] = [wish.images.numpy(), np.empty(reference.shape, reference.dtype)]
    binding = session.io_binding()
    nodes = (session.get_inputs()[0], session.get_outputs()[0])
    for bind, node, bound in zip((binding.bind_input, binding.bind_output), nodes, arrays, strict=True):
        bind(node.name, "cpu", 0, bound.dtype.type, bound.shape, bound.ctypes.data)

    def run() -> NDArray[Any]:
        session.run_with_iobinding(binding)
        return arrays[1]  # both arrays live as long as this function: the binding knows their addresses alone

    return run, len(file)


def _request(model: nn.Module, wish: Wish, arithmetic: str) -> tuple[Run, int]:
    import openvino

    file = wish.exports.onnx(model, wish.images)
    settings = {
        "INFERENCE_NUM_THREADS": wish.threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": arithmetic,
    }
    core = openvino.Core()
    request = core.compile_model(core.read_model(file, b""), "CPU", settings).create_infer_request()
    given: NDArray[Any] = wish.images.numpy()
    request.set_input_tensor(openvino.Tensor(given, shared_memory=True))
    request.infer()
    arrays: list[NDArray[Any]] = [given, request.get_output_tensor().data]

    def run() -> NDArray[Any]:
        request.infer(share_outputs=True)
        return arrays[1]  # both arrays live as long as this function

    return run, len(file)


@contextmanager
def _no_warnings() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _batches(images: Tensor, size: int) -> Iterator[Tensor]:
    """Whole batches, the last one filled up with the first images."""
    for batch in images.split(size):
        yield batch if len(batch) == size else torch.cat([batch, *[images] * size])[:size]


def _bound(call: Callable[[Tensor], Tensor], images: Tensor) -> Run:
    def run() -> Tensor:
        with torch.inference_mode():
            return call(images)

    return run


def _weight_bytes(model: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
