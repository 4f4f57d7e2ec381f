"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 32x32 colour pictures, from their binary version.

The version that torchvision downloads is pickled Python, which can run anything when it is read; the binary one holds
the same images as plain bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from lowrank_bench.errors import InvalidData
from lowrank_bench.tasks.places import DATA_VARIABLE, find_folder
from lowrank_bench.tasks.small_images import Labelled, SmallImages

PIXELS = 3 * 32 * 32


class _Cifar(SmallImages):
    """Records of one or two labels and 3,072 bytes, red, green and blue plane; the last label is the one wanted."""

    input_size = (3, 32, 32)
    version = 1
    folder: ClassVar[str]
    training_files: ClassVar[tuple[str, ...]]
    test_files: ClassVar[tuple[str, ...]]
    labels: ClassVar[int]

    def read(self, training: bool) -> Labelled:
        """Read the binary files. Raises DataMissing and InvalidData."""
        archive = f"{self.folder.removesuffix('-batches-bin').removesuffix('-binary')}-binary.tar.gz"
        remedy = (
            f"unpack {archive} from https://www.cs.toronto.edu/~kriz/cifar.html (the binary version) and set "
            f"{DATA_VARIABLE} to the folder that then holds {self.folder}; the pickled version is not read"
        )
        folder = find_folder(self.name, (self.folder,), self._holds, remedy)
        parts = [self._records(folder / name) for name in (self.training_files if training else self.test_files)]
        records = torch.cat(parts)
        return Labelled(records[:, self.labels :].reshape(-1, *self.input_size), records[:, self.labels - 1].long())

    def _holds(self, folder: Path) -> bool:
        return all((folder / name).is_file() for name in (*self.training_files, *self.test_files))

    def _records(self, path: Path) -> torch.Tensor:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InvalidData(f"{path} cannot be read ({error.strerror}): get the file again") from None
        size = self.labels + PIXELS
        if not content or len(content) % size:
            raise InvalidData(f"{path} has {len(content)} bytes, no multiple of {size}: get the file again")
        return torch.from_numpy(np.frombuffer(content, np.uint8).reshape(-1, size).copy())


class Cifar10(_Cifar):
    """Pictures of ten kinds of things, 32x32 in colour; 50,000 to train on and 10,000 to test."""

    name, classes = "cifar10", 10
    mean, deviation = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the training images
    folder = "cifar-10-batches-bin"
    training_files = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
    test_files = ("test_batch.bin",)
    labels = 1


class Cifar100(_Cifar):
    """Pictures of a hundred kinds of things, 32x32 in colour; 50,000 to train on and 10,000 to test."""

    name, classes = "cifar100", 100
    mean, deviation = (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)  # of the training images
    folder = "cifar-100-binary"
    training_files, test_files = ("train.bin",), ("test.bin",)
    labels = 2  # the coarse one first
