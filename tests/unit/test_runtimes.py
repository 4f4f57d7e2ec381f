from __future__ import annotations

import copy
import errno
import re
import sys
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

import lowrank_bench as lrb
from lowrank_bench.errors import NO_MEMORY, ExportFailed, InvalidInput, NotWritten, RuntimeMissing, UnknownName
from lowrank_bench.measurement import runtimes
from lowrank_bench.measurement.converters import Wish
from lowrank_bench.measurement.runtimes import (
    RUNTIMES,
    Runtime,
    available_runtimes,
    inference_state,
    prepare,
    relative_error,
)

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def network() -> nn.Module:
    """A small network with what compressed ones are made of: strides, groups, rectangular kernels, batch norm; always
    the same one, as five numbers in eight bits are 3 to 27 % off from draw to draw.
    """
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, (3, 1), padding=(1, 0), groups=16, bias=False),
        nn.Conv2d(16, 32, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 5),
    )


class Failing(nn.Module):
    """Raises what it is told to."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, images: Tensor) -> Tensor:
        raise self.error


@pytest.mark.parametrize("name", [name for name in RUNTIMES if name != "compile"])
def test_every_runtime_that_is_ready_computes_what_eager_computes_and_the_others_say_why_they_are_not(name):
    missing = available_runtimes()[name]
    if missing is not None:
        assert "pip install 'lowrank-bench[runtimes]'" in missing or "this processor has no" in missing
        with pytest.raises(RuntimeMissing, match=re.escape(missing)):
            prepare(name, network(), IMAGES, 1)
        pytest.skip(missing)
    model = network().eval()
    prepared = prepare(name, model, IMAGES, 1)
    # What reduced arithmetic does is not a matter of the last digits, and is seen.
    least, most = {"float32": (0, 1e-5), "bfloat16": (0, 2e-2), "int8": (1e-5, 1e-1)}[RUNTIMES[name].arithmetic]
    assert least <= prepared.output_error <= most
    assert prepared.model_bytes >= sum((1 if name.endswith("int8") else 4) * p.numel() for p in model.parameters())
    assert prepared.convert_seconds > 0
    with torch.no_grad():
        assert relative_error(prepared.run(), model(IMAGES)) <= most
        others = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))
        if most <= 1e-5:  # batches of two, the last one not full
            assert prepared.predict(others).tolist() == model(others).argmax(dim=1).tolist()
        assert prepared.predict(others).shape == (5,)


@pytest.mark.parametrize("mode", ["naive", "rebuild", "core_by_core"])
@pytest.mark.parametrize("name", ["eager", "eager-nhwc"])
def test_torch_s_own_runtimes_take_every_form_of_a_tensor_train_whose_cores_have_five_axes(name, mode):
    model = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1)).eval()
    compressed = lrb.compress(model, "tt_conv", ranks=2, options={"mode": mode}, input_size=(8, 9, 9))
    prepared = prepare(name, compressed.model, torch.randn(2, 8, 9, 9), 1)
    assert prepared.output_error <= 1e-5


@pytest.mark.parametrize("name", ["eager", "onnxruntime", "openvino"])
def test_an_output_that_lies_in_memory_in_another_order_is_the_same(name):
    if available_runtimes()[name] is not None:
        pytest.skip(available_runtimes()[name])

    class ChannelsBehind(nn.Conv2d):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images).permute(0, 2, 3, 1)

    model = ChannelsBehind(3, 4, 3).eval()
    prepared = prepare(name, model, IMAGES, 1)
    assert prepared.output_error <= 1e-5
    assert relative_error(prepared.run(), model(IMAGES).detach()) <= 1e-5


@pytest.mark.parametrize("error", [NotWritten("x.onnx cannot be written"), OSError(errno.ENOSPC, "No space left")])
def test_a_full_disk_is_no_fault_of_the_model(monkeypatch, error):
    def convert(model, wish):
        raise error

    monkeypatch.setitem(RUNTIMES, "stub", Runtime(convert))
    with pytest.raises(NotWritten, match=r"cannot (be written|write)"):
        prepare("stub", network(), IMAGES, 1)


def test_bfloat16_is_not_ready_where_the_processor_computes_in_float32_instead(monkeypatch):
    openvino = pytest.importorskip("openvino")
    found = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    for known in ([*found, "BF16"], [name for name in found if name != "BF16"]):
        monkeypatch.setattr(openvino.Core, "get_property", lambda *_, known=known: known)
        missing = available_runtimes()["openvino-bf16"]
        assert (missing is None) == ("BF16" in known)
        assert missing is None or "in float32" in missing


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_what_runs_holds_its_input_and_output(name):
    if missing := RUNTIMES[name].missing():
        pytest.skip(missing)
    model = network().eval()
    run = prepare(name, model, IMAGES.repeat(64, 1, 1, 1), 1).run  # what else was prepared is gone
    others = [torch.full((128, 3, 16, 16), float("nan")) for _ in range(200)]
    with torch.no_grad():
        assert relative_error(run(), model(IMAGES.repeat(64, 1, 1, 1))) < 1e-4
    assert len(others) == 200


def test_compile_takes_more_models_of_one_class_than_torch_keeps_and_freezes_each_for_itself():
    models = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval() for _ in range(3)]
    with torch._dynamo.config.patch(recompile_limit=1):  # 8 by default
        prepared = [prepare("compile", model, IMAGES, 1) for model in models]
    for model, one in zip(models, prepared, strict=True):
        with torch.no_grad():
            assert relative_error(one.run(), model(IMAGES)) <= 1e-5


def test_the_model_is_left_as_it_is():
    model = network().train()
    model[0].weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    for name in ("eager", "eager-nhwc"):
        prepare(name, model, IMAGES, 1)
    assert all(module.training for module in model.modules())
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * 7
    assert model[0].weight.is_contiguous()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_nhwc_runs_on_channels_last_tensors_and_eager_on_contiguous_ones():
    seen = {}

    class Watch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, images: Tensor) -> Tensor:
            key = images.is_contiguous(), self.conv.weight.is_contiguous()
            seen[key] = images.is_contiguous(memory_format=torch.channels_last)
            output: Tensor = self.conv(images)
            return output

    for given in (torch.contiguous_format, torch.channels_last):
        prepare("eager", Watch().to(memory_format=given), IMAGES, 1)
        assert seen == {(True, True): False}
    prepare("eager-nhwc", Watch(), IMAGES, 1)
    assert seen == {(True, True): False, (False, False): True}


def test_unknown_runtime_suggests_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'onnxruntime'"):
        prepare("onnx-runtime", network(), IMAGES, 1)


def test_missing_package_is_named_with_the_install_hint(monkeypatch):
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    assert available_runtimes()["openvino"] == (
        "onnx, onnxscript, openvino not installed: pip install 'lowrank-bench[runtimes]'"
    )
    with pytest.raises(RuntimeMissing, match=r"onnxruntime.*pip install 'lowrank-bench\[runtimes\]'"):
        prepare("onnxruntime", network(), IMAGES, 1)


def test_missing_compiler_is_named(monkeypatch):
    monkeypatch.setattr(runtimes.shutil, "which", lambda name: None)
    with pytest.raises(RuntimeMissing, match=r"install g\+\+"):
        prepare("compile", network(), IMAGES, 1)


def test_a_runtime_that_computes_something_else_is_refused(monkeypatch):
    def in_bfloat16(model: nn.Module, wish: Wish):
        return lambda: model.bfloat16()(wish.images.bfloat16()).float(), 0

    monkeypatch.setitem(RUNTIMES, "sloppy", Runtime(in_bfloat16))
    with pytest.raises(ExportFailed, match=r"'sloppy' differs from eager by .*time it in another runtime"):
        prepare("sloppy", network(), IMAGES, 1)


@pytest.mark.parametrize(
    ("factor", "dtype", "taken"), [(1.002, "float16", True), (1.002, "float32", False), (1.1, "float16", False)]
)
def test_a_difference_is_judged_by_the_rounding_of_the_model_s_own_dtype(monkeypatch, factor, dtype, taken):
    def scaled(model: nn.Module, wish: Wish):
        return lambda: model(wish.images) * factor, 0

    monkeypatch.setitem(RUNTIMES, "scaled", Runtime(scaled))
    kind = getattr(torch, dtype)
    with nullcontext() if taken else pytest.raises(ExportFailed, match="'scaled' differs from eager"):
        prepare("scaled", network().to(kind), IMAGES.to(kind), 1)


def test_a_runtime_that_rejects_the_model_is_named_with_the_reason(monkeypatch):
    def reject(model: nn.Module, wish: Wish):
        raise RuntimeError("no such operator: aten::strange")

    monkeypatch.setitem(RUNTIMES, "strict", Runtime(reject))
    with pytest.raises(
        ExportFailed,
        match=r"'strict' cannot take this model: RuntimeError: no such operator: aten::strange: time it",
    ):
        prepare("strict", network(), IMAGES, 1)


@pytest.mark.parametrize("name", ["compile", "onnxruntime"])
def test_of_what_an_exporter_says_the_cause_is_told_in_a_line(name):
    if missing := RUNTIMES[name].missing():
        pytest.skip(missing)

    class Asking(nn.Module):  # torch 2.7 traces the branch, but ONNX has no singular values
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.svdvals(x).mean(-1) if x.sum().item() > 0 else x.amax((2, 3))

    with pytest.raises(ExportFailed, match=r"cannot take this model: \w+: .*: time it in another runtime") as caught:
        prepare(name, Asking(), IMAGES, 1)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


def test_an_input_that_the_model_rejects_is_named_with_its_shape():
    with pytest.raises(InvalidInput, match=r"\(2, 3, 16, 16\)"):
        prepare("eager", nn.Conv2d(4, 8, 3), IMAGES, 1)


@pytest.mark.parametrize("error", [MemoryError(), *(RuntimeError(f"somewhere: {words}") for words in NO_MEMORY)])
def test_running_out_of_memory_is_not_mistaken_for_a_bad_input_or_model(error):
    with pytest.raises(type(error)) as raised:
        prepare("eager", Failing(error), IMAGES, 1)
    assert not isinstance(raised.value, InvalidInput | ExportFailed)


def test_outputs_that_are_no_tensor_or_not_finite_are_refused():
    class Pair(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            return images, images

    with pytest.raises(InvalidInput, match=r"one tensor.*tuple"):
        prepare("eager", Pair(), IMAGES, 1)
    broken = nn.Conv2d(3, 4, 3)
    nn.init.constant_(broken.bias, torch.nan)
    with pytest.raises(InvalidInput, match="not finite"):
        prepare("eager", broken, IMAGES, 1)


@pytest.mark.parametrize("flushed", [False, True])
def test_inference_state_gives_threads_grad_mode_and_denormals_back_even_after_an_error(flushed):
    threads = torch.get_num_threads()
    torch.set_flush_denormal(flushed)
    try:
        with pytest.raises(KeyError), inference_state(threads + 1):
            assert torch.get_num_threads() == threads + 1
            assert torch.is_inference_mode_enabled()
            torch.set_flush_denormal(not flushed)
            raise KeyError
        assert torch.get_num_threads() == threads
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        assert (sys.float_info.min / 2 == 0) is flushed
    finally:
        torch.set_flush_denormal(False)


def test_relative_error_is_scale_free_and_infinite_between_shapes():
    reference = torch.randn(3, 4, dtype=torch.float64)
    assert relative_error(1.01 * reference, reference) == pytest.approx(0.01)
    assert relative_error(101 * reference.numpy(), 100 * reference.numpy()) == pytest.approx(0.01)
    assert relative_error(reference[:2], reference) == float("inf")
