"""Models as ONNX files: exported once for all the runtimes, copies and processes of a measurement."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lowrank_bench.atomic import drafts

PLAIN = bool, int, float, str, tuple, list, type(None)


class Exports:
    """Exports models, and keeps the files: in a folder that the fresh processes of some measurements share, or
    where there is none in this process only.

    ``spared``: seconds of the exports whose files were found; the first one took them, and a conversion that found a
    file is told as if it had, so that its seconds do not depend on what ran before.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder, self.spared = folder, 0.0
        self._files: dict[str, tuple[bytes, float]] = {}

    def onnx(self, model: nn.Module, images: Tensor) -> bytes:
        """The ONNX file of a model in eval mode for images of this shape. Raises what the exporter raises."""
        key = _key(model, images)
        if found := self._read(key):
            self.spared += found[1]
            return found[0]
        start = time.perf_counter()
        file = _export(model, images)
        self._write(key, file, time.perf_counter() - start)
        return file

    def _read(self, key: str) -> tuple[bytes, float] | None:
        if self.folder is None:
            return self._files.get(key)
        try:
            return (self.folder / f"{key}.onnx").read_bytes(), float((self.folder / f"{key}.seconds").read_text())
        except FileNotFoundError:
            return None

    def _write(self, key: str, file: bytes, seconds: float) -> None:
        if self.folder is None:
            self._files[key] = file, seconds
            return
        with drafts(self.folder / f"{key}.onnx", self.folder / f"{key}.seconds") as (onnx, told):
            onnx.write_bytes(file)
            told.write_text(repr(seconds))


def _key(model: nn.Module, images: Tensor) -> str:
    digest = hashlib.sha256(f"{model!r} {tuple(images.shape)} {images.dtype}".encode())
    for name, module in model.named_modules():  # what a forward pass may depend on beside the tensors
        plain = {key: value for key, value in vars(module).items() if key[0] != "_" and isinstance(value, PLAIN)}
        digest.update(f"{name} {type(module).__module__}.{type(module).__qualname__} {sorted(plain.items())}".encode())
    for name, value in (dict(model.named_buffers()) | model.state_dict()).items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _export(model: nn.Module, images: Tensor) -> bytes:
    program: Any = torch.onnx.export(model, (images,), dynamo=True, verbose=False)
    assert program is not None  # only the old exporter returns nothing
    file: bytes = program.model_proto.SerializeToString()
    return file
