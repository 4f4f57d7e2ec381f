"""The runtimes in which models are timed, dense and compressed alike: each makes a model a call without arguments."""

from __future__ import annotations

import copy
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lowrank_bench.errors import ExportFailed, InvalidInput, RuntimeMissing, UnknownName

# In float32, another order of summation costs about 1e-6; arithmetic in bfloat16 would cost 1e-2.
OUTPUT_TOLERANCE = 1e-4

Run = Callable[[], Tensor | NDArray[Any]]


@dataclass(frozen=True)
class Runtime:
    """One runtime.

    ``convert(model, example_input, threads)`` returns the call and the model's size in bytes; ``missing()`` says what
    to install, None where the runtime is ready.
    """

    convert: Callable[[nn.Module, Tensor, int], tuple[Run, int]]
    missing: Callable[[], str | None] = lambda: None


@dataclass(frozen=True)
class Prepared:
    """A model in a runtime: ``run()`` computes the output for the example input, which is bound to it once for all.

    ``output_error``: relative difference (Frobenius norm) from what eager computes; ``convert_seconds``: conversion
    with the first run; ``model_bytes``: the weights, or the file where the runtime has a file format.
    """

    run: Run
    output_error: float
    convert_seconds: float
    model_bytes: int


def prepare(name: str, model: nn.Module, example_input: Tensor, threads: int) -> Prepared:
    """Convert a copy of the model, on the CPU and in eval mode, and check its output against eager's.

    The model is left as it is. Time the result within ``inference_state(threads)``: torch's own runtimes take their
    number of threads from there. Raises UnknownName, RuntimeMissing, InvalidInput where the model itself rejects the
    input, and ExportFailed where the runtime rejects the model or computes something else.
    """
    if name not in RUNTIMES:
        raise UnknownName("runtime", name, RUNTIMES)
    if missing := RUNTIMES[name].missing():
        raise RuntimeMissing(f"runtime {name!r} is not ready: {missing}")
    own = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    with inference_state(threads):
        reference = _eager_output(own, example_input)
        start = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # exporters warn about their own insides
                run, model_bytes = RUNTIMES[name].convert(own, example_input, threads)
                output = run()
        except Exception as error:
            if _out_of_memory(error):
                raise
            raise ExportFailed(f"runtime {name!r} cannot take this model: {type(error).__name__}: {error}") from error
        seconds = time.perf_counter() - start
        output_error = relative_error(output, reference)
    if not output_error <= OUTPUT_TOLERANCE:
        raise ExportFailed(f"runtime {name!r} differs from eager by {output_error:.1e}, more than {OUTPUT_TOLERANCE:g}")
    return Prepared(run, output_error, seconds, model_bytes)


def available_runtimes() -> dict[str, str | None]:
    """Every runtime; None where it is ready, else what is missing and how to install it."""
    return {name: runtime.missing() for name, runtime in RUNTIMES.items()}


def relative_error(output: Tensor | NDArray[Any], reference: Tensor | NDArray[Any]) -> float:
    """Frobenius norm of the difference, relative to the reference's; infinite where the shapes differ."""
    a, b = (torch.as_tensor(value).double() for value in (output, reference))
    if a.shape != b.shape:
        return float("inf")
    return float((a - b).norm() / b.norm().clamp_min(torch.finfo(torch.float32).tiny))


@contextmanager
def inference_state(threads: int) -> Iterator[None]:
    """Inference mode with so many threads of torch; what was before comes back, also if a runtime changed it."""
    # Runtimes may set the processor to flush denormals, which torch cannot read back: half the smallest normal tells.
    before, flushed = torch.get_num_threads(), sys.float_info.min / 2 == 0
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(flushed)


def _eager(model: nn.Module, example_input: Tensor, threads: int) -> tuple[Run, int]:
    return _bound(model, example_input.contiguous()), _weight_bytes(model)


def _eager_nhwc(model: nn.Module, example_input: Tensor, threads: int) -> tuple[Run, int]:
    model = model.to(memory_format=torch.channels_last)
    maps = example_input.dim() == 4  # a linear layer on its own takes rows, which have no channels to put last
    layout = torch.channels_last if maps else torch.contiguous_format
    return _bound(model, example_input.contiguous(memory_format=layout)), _weight_bytes(model)


def _compile(model: nn.Module, example_input: Tensor, threads: int) -> tuple[Run, int]:
    def forward(images: Tensor) -> Tensor:
        output: Tensor = model(images)
        return output

    # Dynamo keeps what it compiled by code object, and falls back to eager after 8 models of one class: an own object
    # for each model keeps them apart. fullgraph turns any other fallback into an error.
    forward.__code__ = forward.__code__.replace()
    run = _bound(torch.compile(forward, fullgraph=True, dynamic=False), example_input.contiguous())
    # torch.compile(options={"freezing": True}) compiles without freezing (torch 2.15): Dynamo asks the global setting.
    import torch._inductor.config as inductor

    with inductor.patch(freezing=True):
        run()
    return run, _weight_bytes(model)


def _onnxruntime(model: nn.Module, example_input: Tensor, threads: int) -> tuple[Run, int]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    # Between calls, this session's threads would spin on the cores on which the other model is being timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    file = _onnx_file(model, example_input)
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    images: NDArray[Any] = example_input.contiguous().numpy()
    output: NDArray[Any] = np.empty_like(model(example_input).numpy())
    binding = session.io_binding()
    for bind, node, array in (
        (binding.bind_input, session.get_inputs()[0], images),
        (binding.bind_output, session.get_outputs()[0], output),
    ):
        bind(node.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def run() -> NDArray[Any]:
        session.run_with_iobinding(binding)
        return output

    return run, len(file)


def _openvino(model: nn.Module, example_input: Tensor, threads: int) -> tuple[Run, int]:
    import openvino

    file = _onnx_file(model, example_input)
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # the default is bfloat16 wherever the processor has it
    }
    core = openvino.Core()
    request = core.compile_model(core.read_model(file, b""), "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(example_input.contiguous().numpy(), shared_memory=True))
    request.infer()
    output: NDArray[Any] = request.get_output_tensor().data

    def run() -> NDArray[Any]:
        request.infer(share_outputs=True)
        return output

    return run, len(file)


def _bound(call: Callable[[Tensor], Tensor], example_input: Tensor) -> Run:
    def run() -> Tensor:
        with torch.inference_mode():
            return call(example_input)

    return run


def _onnx_file(model: nn.Module, example_input: Tensor) -> bytes:
    program = torch.onnx.export(model, (example_input,), dynamo=True, verbose=False)
    assert program is not None  # only the old exporter returns nothing
    file: bytes = program.model_proto.SerializeToString()
    return file


def _weight_bytes(model: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))


def _eager_output(model: nn.Module, example_input: Tensor) -> Tensor:
    try:
        output = model(example_input)
    except Exception as error:
        if _out_of_memory(error):
            raise
        shape = tuple(example_input.shape)
        raise InvalidInput(f"the model rejects an input of shape {shape}, give the one it takes: {error}") from error
    if not isinstance(output, Tensor):
        raise InvalidInput(f"only a model whose output is one tensor can be timed, not {type(output).__name__}")
    if not output.isfinite().all():
        raise InvalidInput("the model's output is not finite: its weights are damaged, and times would mislead")
    return output


def _out_of_memory(error: Exception) -> bool:
    """Torch's CPU allocator raises a bare RuntimeError."""
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def _no_compiler() -> str | None:
    found = any(shutil.which(compiler) for compiler in ("c++", "g++", "clang++", "cl"))
    return None if found else "it needs a C++ compiler: install g++ or clang++"


def _lacks(*packages: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        absent = [package for package in packages if find_spec(package) is None]
        return f"{', '.join(absent)} not installed: pip install 'lowrank-bench[runtimes]'" if absent else None

    return missing


RUNTIMES: dict[str, Runtime] = {
    "eager": Runtime(_eager),
    "eager-nhwc": Runtime(_eager_nhwc),
    "compile": Runtime(_compile, _no_compiler),
    "onnxruntime": Runtime(_onnxruntime, _lacks("onnx", "onnxscript", "onnxruntime")),
    "openvino": Runtime(_openvino, _lacks("onnx", "onnxscript", "openvino")),
}
