"""The runtimes in which models are timed, dense and compressed alike: each makes a model a call without arguments."""

from __future__ import annotations

import errno
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lowrank_bench.compression.maxout import pair_maxouts
from lowrank_bench.compression.passes import copy_of
from lowrank_bench.errors import ExportFailed, InvalidInput, NotWritten, RuntimeMissing, UnknownName, is_out_of_memory
from lowrank_bench.measurement.converters import (
    Run,
    Wish,
    lay_out,
    to_compiled,
    to_eager,
    to_eager_nhwc,
    to_onnxruntime,
    to_onnxruntime_int8,
    to_openvino,
    to_openvino_bf16,
)
from lowrank_bench.measurement.exports import Exports

Arithmetic = Literal["float32", "bfloat16", "int8"]

# Relative difference of the output from eager's. In float32, another order of summation costs about 1e-6. With fewer
# bits the difference is what was asked for, and its price is measured as accuracy: CharNet came within 4e-2 in int8,
# a wrong conversion is off by about 1.
OUTPUT_TOLERANCE: dict[Arithmetic, float] = {"float32": 1e-4, "bfloat16": 5e-2, "int8": 3e-1}

ROUNDINGS = 10
"""The same in units of rounding of the model's own dtype, which decide where that is in half precision."""

OTHERWISE = "time it in another runtime, such as 'eager', or compress it by another method"

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True)
class Runtime:
    """One runtime.

    ``convert(model, wish)`` returns the call and the model's size in bytes; ``missing()`` says
    what to install, None where the runtime is ready; ``layout``: of the images.
    """

    convert: Callable[[nn.Module, Wish], tuple[Run, int]]
    missing: Callable[[], str | None] = lambda: None
    arithmetic: Arithmetic = "float32"
    layout: torch.memory_format = torch.contiguous_format


@dataclass(frozen=True)
class Prepared:
    """A model in a runtime: ``run()`` computes the output for what ``images`` holds, at first the example input.

    ``output_error``: relative difference (Frobenius norm) from what eager computes; ``convert_seconds``: conversion
    with the first run; ``model_bytes``: the weights, or the file where the runtime has a file format.
    """

    run: Run
    images: Tensor
    output_error: float
    convert_seconds: float
    model_bytes: int

    def predict(self, images: Tensor) -> Tensor:
        """Class of each of any number of images (N, C, H, W), int64, (N,), a batch of the example's size at a time."""
        size, classes = len(self.images), []
        for batch in images.split(size):
            self.images[: len(batch)] = batch
            classes.append(torch.as_tensor(self.run())[: len(batch)].argmax(dim=1))
        return torch.cat(classes)


def prepare(
    name: str,
    model: nn.Module,
    example_input: Tensor,
    threads: int,
    calibration: Tensor | None = None,
    exports: Exports | None = None,
) -> Prepared:
    """Convert a copy of the model, on the CPU and in eval mode, and check its output against eager's.

    The model is left as it is; in the copy, weights have the layout that the runtime wants, whatever theirs is, and
    maxouts take the form that is cheap for inference (``pair_maxouts``). Time
    the result within ``inference_state(threads)``: torch's own runtimes take their number of threads from there.
    ``calibration``: images (M, C, H, W) from which a runtime that quantizes learns the ranges of activations; without
    them the example input has to do. ``exports``: where its ONNX file may be found, by default nowhere. Raises
    UnknownName, RuntimeMissing, InvalidInput where the model itself rejects the input, ExportFailed where the runtime
    rejects the model or computes something else, and NotWritten where a disk is full.
    """
    if name not in RUNTIMES:
        raise UnknownName("runtime", name, RUNTIMES)
    if missing := RUNTIMES[name].missing():
        raise RuntimeMissing(f"runtime {name!r} is not ready: {missing}")
    own = copy_of(model).cpu().eval().requires_grad_(False)
    lay_out(own, torch.contiguous_format)
    runtime = RUNTIMES[name]
    # A linear layer on its own takes rows, which have no channels to put last.
    layout = runtime.layout if example_input.dim() == 4 else torch.contiguous_format
    images = example_input.clone(memory_format=layout)
    exports = exports or Exports()
    spared = exports.spared
    with inference_state(threads):
        reference = _eager_output(own, example_input)
        wish = Wish(images, threads, images if calibration is None else calibration, exports, reference)
        start = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # exporters warn about their own insides
                pair_maxouts(own)
                run, model_bytes = runtime.convert(own, wish)
                output = run()
        except Exception as error:
            if is_out_of_memory(error) or isinstance(error, NotWritten):
                raise
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                raise NotWritten(
                    f"runtime {name!r} cannot write what it makes of the model ({error}): make room there, then run "
                    "again"
                ) from error
            raise ExportFailed(
                f"runtime {name!r} cannot take this model: {_first_cause(error)}: {OTHERWISE}"
            ) from error
        seconds = time.perf_counter() - start + exports.spared - spared
        output_error = relative_error(output, reference)
    tolerance = max(OUTPUT_TOLERANCE[runtime.arithmetic], ROUNDINGS * torch.finfo(example_input.dtype).eps)
    if not output_error <= tolerance:
        raise ExportFailed(
            f"runtime {name!r} differs from eager by {output_error:.1e}, more than {tolerance:g}: {OTHERWISE}"
        )
    return Prepared(run, images, output_error, seconds, model_bytes)


def arithmetic_of(runtime: str) -> Arithmetic:
    """In what a runtime computes, by its name; float32 where it is not known."""
    return RUNTIMES[runtime].arithmetic if runtime in RUNTIMES else "float32"


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


def _eager_output(model: nn.Module, example_input: Tensor) -> Tensor:
    try:
        output = model(example_input)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        shape = tuple(example_input.shape)
        raise InvalidInput(f"the model rejects an input of shape {shape}, give the one it takes: {error}") from error
    if not isinstance(output, Tensor):
        raise InvalidInput(f"only a model whose output is one tensor can be timed, not {type(output).__name__}")
    if not output.isfinite().all():
        raise InvalidInput("the model's output is not finite: its weights are damaged, and times would mislead")
    return output


def _first_cause(error: BaseException) -> str:
    """What started it, in a line: exporters wrap it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])


def _no_compiler() -> str | None:
    found = any(shutil.which(compiler) for compiler in ("c++", "g++", "clang++", "cl"))
    return None if found else "it needs a C++ compiler: install g++ or clang++"


def _lacks(*packages: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        absent = [package for package in packages if find_spec(package) is None]
        return f"{', '.join(absent)} not installed: pip install 'lowrank-bench[runtimes]'" if absent else None

    return missing


_ONNXRUNTIME = _lacks("onnx", "onnxscript", "onnxruntime")
_OPENVINO = _lacks("onnx", "onnxscript", "openvino")


def _no_bfloat16() -> str | None:
    if reason := _OPENVINO():
        return reason
    import openvino

    known = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return None if "BF16" in known else "this processor has no bfloat16: OpenVINO would compute in float32"


RUNTIMES: dict[str, Runtime] = {
    "eager": Runtime(to_eager),
    "eager-nhwc": Runtime(to_eager_nhwc, layout=torch.channels_last),
    "compile": Runtime(to_compiled, _no_compiler),
    "onnxruntime": Runtime(to_onnxruntime, _ONNXRUNTIME),
    "onnxruntime-int8": Runtime(to_onnxruntime_int8, _ONNXRUNTIME, "int8"),
    "openvino": Runtime(to_openvino, _OPENVINO),
    "openvino-bf16": Runtime(to_openvino_bf16, _no_bfloat16, "bfloat16"),
}
