"""Small data sets in the files of the real ones, so that they are read by the same code."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lowrank_bench.tasks.cifar import Cifar10, Cifar100


def idx(values: NDArray[np.uint8]) -> bytes:
    """MNIST's format."""
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


def labels(count: int, classes: int = 10) -> NDArray[np.uint8]:
    """Every class in turn."""
    return (np.arange(count) % classes).astype(np.uint8)


def fashion_mnist(folder: Path, train: int = 200, test: int = 30) -> Path:
    """The four raw files; an image's brightness tells its class, and its row its number."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, count in (("train", train), ("t10k", test)):
        images = np.broadcast_to(20 * labels(count)[:, None, None], (count, 28, 28)).copy()
        images[:, 0, 0] = np.arange(count) % 256
        (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images), 1))
        (folder / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels(count)), 1))
    return folder


def cifar(task: Cifar10 | Cifar100, folder: Path, count: int = 40) -> Path:
    """The binary files; red is the label, green its double and blue zero."""
    place = folder / task.folder
    place.mkdir(parents=True)
    for name in (*task.training_files, *task.test_files):
        wanted = labels(count, task.classes)
        planes = np.stack([wanted, 2 * wanted, 0 * wanted], 1).repeat(1024, 1)
        records = np.concatenate([wanted[:, None] // 5] * (task.labels - 1) + [wanted[:, None], planes], 1)
        (place / name).write_bytes(records.tobytes())
    return folder


def image_folder(folder: Path, classes: tuple[str, ...] = ("cat", "dog"), train: int = 20, val: int = 4) -> Path:
    """PNG files of 40x30 pixels, the class's number as its grey."""
    for part, count in (("train", train), ("val", val)):
        for number, name in enumerate(classes):
            place = folder / part / name
            place.mkdir(parents=True)
            for image in range(count):
                Image.new("L", (40, 30), 60 * (number + 1)).save(place / f"{image:03}.png")
    return folder
