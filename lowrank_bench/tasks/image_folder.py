"""A folder of the user's images, one folder for each class below ``train`` and ``val``, as ImageNet comes, and below
``test`` where there is one.
"""

from __future__ import annotations

import copy
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
import torch
from torch import Tensor

from lowrank_bench.errors import DataMissing, InvalidData
from lowrank_bench.tasks.decoded import THREADS, check_images, opened
from lowrank_bench.tasks.held_out import held_out
from lowrank_bench.tasks.open_task import OpenTask, is_code, split_model
from lowrank_bench.tasks.own_images import own_images
from lowrank_bench.tasks.places import find_folder, spelled_path
from lowrank_bench.tasks.preparation import Preparation, preparation_of
from lowrank_bench.tasks.task import Batch, Split, evenly
from lowrank_bench.tasks.variation import shuffled, uniform
from lowrank_bench.tasks.zoo import in_zoo, pretrained_weights

REMEDY = (
    "name a folder as image_folder:FOLDER, or set LOWRANK_BENCH_DATA to it; it holds train and val, and test if you "
    "like, and each of them a folder of images for every class"
)
PARTS, TEST = ("train", "val"), "test"
CALIBRATION_BATCH = 256
UNCOMPRESSED = ".bmp", ".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff"
Sample = tuple[str, int]


class ImageFolder(OpenTask):
    """The user's own images, image_folder:FOLDER with train/CLASS and val/CLASS, prepared as the model wants them.

    With a folder test/CLASS its images are the test images, and those of ``val`` for validation. Without it the test
    images are those of ``val``, and validation is 5,000 of ``train`` (a tenth, of a small set), always the same.

    A network of timm or torchvision gets the images as its library prepares them for its published weights, also where
    it has others, as NAME@FILE. One of the user's own gets them as its factory says, in attributes ``input_size``,
    ``mean``, ``std``, ``crop_pct`` and ``interpolation`` (see own_images); what it does not say, as the
    ``pretrained_cfg`` does of the timm network that it gives; and else as ImageNet's are prepared: at 3x224x224, 0.875
    of the side, bicubic, with ImageNet's mean and deviation. Training crops are those of Szegedy et al. 2015, a random
    8 to 100 % of the image, bicubic, and half are mirrored. Statistics, of batch norms and for runtimes that quantize,
    are taken on training images prepared as test images are; those of a network that no method changed stay.
    """

    name, version = "image_folder", 3
    timing_reads_brought = False
    settles_unchanged = False
    classes, input_size = 0, (3, 224, 224)

    def __init__(self, argument: str = "") -> None:
        """``argument``: the folder; without it that of LOWRANK_BENCH_DATA."""
        super().__init__()
        self.argument = argument
        self._preparation: Preparation | None = None

    @classmethod
    def spelled(cls, argument: str) -> str:
        """The folder, see spelled_path."""
        return spelled_path(argument)

    def for_model(self, model: str) -> Self:
        """The task with that model's size and preparation of images, and with the number of classes in the folder.
        Raises what check_model raises, DataMissing and InvalidData.
        """
        self.check_model(model)
        bound = copy.copy(self)
        name, _ = split_model(model)
        bound._preparation = preparation_of(name, own_images(name) if is_code(name) else None)
        bound.input_size = bound._preparation.input_size
        bound.classes = len(self._classes)
        return bound

    def check_ready(self, model: str) -> None:
        """See Task.check_ready; every image is decoded once, see check_images."""
        check_images(self._folder, [path for path, _ in self._all])
        super().check_ready(model)

    def brought(self, model: str) -> int:
        """Checksum of the weights and code, of which weights the library has where it gives them, and of the names and
        sizes of all images, and of the content of those whose size says nothing of it. Raises InvalidData for one that
        cannot be looked at.
        """
        name, weights = split_model(model)
        found = super().brought(model)
        if in_zoo(name) and weights is None:
            found = zlib.crc32(pretrained_weights(name).encode(), found)
        with _readable(self._folder):
            facts = [f"{os.path.relpath(path, self._folder)} {_size(path)}" for path, _ in self._all]
        return zlib.crc32("\n".join(facts).encode(), found)

    def batches(
        self, split: Split, batch_size: int = 256, *, seed: int = 0, epoch: int = 0, limit: int | None = None
    ) -> Iterator[Batch]:
        """Iterate over a split; see Task.batches."""
        return self._read(split, batch_size, np.random.PCG64([seed, epoch]), limit, varied=split == "train")

    def calibration_batches(self, *, seed: int, limit: int) -> Iterator[Batch]:
        """Training images, prepared as test images are; see Task.calibration_batches."""
        return self._read("train", CALIBRATION_BATCH, np.random.PCG64([seed, 0]), limit, varied=False)

    def group_sizes(self, split: Split) -> None:
        """Every image stands on its own."""

    def _read(
        self, split: Split, batch_size: int, words: np.random.PCG64, limit: int | None, *, varied: bool
    ) -> Iterator[Batch]:
        prepare = self._preparation or preparation_of("")
        samples = self._splits[split]
        rows = evenly(len(samples), limit)
        if split == "train":
            rows = rows[shuffled(words, len(rows))]
        read = _reading(prepare.varied if varied else prepare.fixed, prepare.mode)
        with ThreadPoolExecutor(THREADS) as pool:
            for some in rows.split(batch_size):
                chosen = [samples[row] for row in some.tolist()]
                draws = [uniform(words, 5 * len(chosen)).reshape(len(chosen), 5)] if varied else []
                images = list(pool.map(read, chosen, *draws))
                yield torch.stack(images), torch.tensor([label for _, label in chosen])

    @cached_property
    def _folder(self) -> Path:
        def holds(folder: Path) -> bool:
            return all(os.path.isdir(folder / part) for part in PARTS)

        if not self.argument:
            return find_folder(self.name, (), holds, REMEDY)
        folder = Path(self.argument).expanduser()
        if not holds(folder):
            raise DataMissing(f"task 'image_folder:{folder}': there are no folders train and val in {folder}: {REMEDY}")
        return folder

    @cached_property
    def _folders(self) -> tuple[str, ...]:
        """Those that count: train, val, and test where there is one."""
        return (*PARTS, TEST) if os.path.isdir(self._folder / TEST) else PARTS

    @cached_property
    def _classes(self) -> list[str]:
        found = [{name for name, is_folder in _entries(self._folder / part) if is_folder} for part in self._folders]
        everywhere = set.intersection(*found)
        if (odd := sorted(set.union(*found) - everywhere)) or not everywhere:
            raise InvalidData(
                f"{self._folder}: the classes of {' and '.join(self._folders)} differ, "
                f"{', '.join(odd[:5]) or 'there are none'}: every class wants a folder in each of them, of the same "
                f"name{'; rename test where its images have no classes' if TEST in self._folders else ''}"
            )
        return sorted(everywhere)

    @cached_property
    def _samples(self) -> dict[str, list[Sample]]:
        """Folder -> its images."""
        return {part: _samples_below(self._folder / part, self._classes) for part in self._folders}

    @property
    def _all(self) -> list[Sample]:
        return [sample for samples in self._samples.values() for sample in samples]

    @cached_property
    def _splits(self) -> dict[Split, list[Sample]]:
        train, val = (self._samples[part] for part in PARTS)
        if TEST in self._samples:
            return {"train": train, "validation": val, "test": self._samples[TEST]}
        validation, rest = ([train[row] for row in rows.tolist()] for rows in held_out(len(train)))
        return {"train": rest, "validation": validation, "test": val}


def _samples_below(folder: Path, classes: Sequence[str]) -> list[Sample]:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    found: list[Sample] = []
    astray = [name for name, is_folder in _entries(folder) if not is_folder]
    for number, name in enumerate(classes):
        files = _files_below(folder / name)
        images = [path for path in files if path.lower().endswith(IMG_EXTENSIONS)]
        if not images:
            raise InvalidData(f"{folder / name} holds no image: every class wants some in {folder}")
        found += [(path, number) for path in images]
        astray += [os.path.relpath(path, folder) for path in files if not path.lower().endswith(IMG_EXTENSIONS)]
    if astray:
        raise InvalidData(
            f"{folder}: {len(astray)} {'files' if len(astray) > 1 else 'file'} would be passed over, "
            f"{', '.join(sorted(astray)[:3])}{', ...' if len(astray) > 3 else ''}: images are "
            f"{', '.join(IMG_EXTENSIONS)} in a class's folder; convert, move or remove them"
        )
    return found


def _entries(folder: Path) -> list[tuple[str, bool]]:
    """What is in a folder and not hidden: its name, and whether it is a folder. Raises InvalidData."""
    with _readable(folder), os.scandir(folder) as entries:
        return [(entry.name, entry.is_dir()) for entry in entries if not _hidden(entry.name)]


def _files_below(folder: Path) -> list[str]:
    """Those that are not hidden, in the order of torchvision's ImageFolder. Raises InvalidData for a folder that cannot
    be read, however deep.
    """

    def stop(error: OSError) -> NoReturn:
        raise error

    with _readable(folder):
        return [
            os.path.join(place, name)
            for place, _, names in sorted(os.walk(folder, followlinks=True, onerror=stop))
            if not any(map(_hidden, Path(place).relative_to(folder).parts))
            for name in sorted(names)
            if not _hidden(name)
        ]


@contextmanager
def _readable(place: Path) -> Iterator[None]:
    """Raise InvalidData naming the file or folder within that cannot be read."""
    try:
        yield
    except OSError as error:
        raise InvalidData(
            f"{error.filename or place} cannot be read ({error.strerror}): let this user read it, mend the link that "
            "leads nowhere, or remove it"
        ) from None


def _size(path: str) -> str:
    """In bytes; with a checksum in formats that do not compress, where all images of as many pixels are as large."""
    size = os.path.getsize(path)
    return f"{size} {zlib.crc32(Path(path).read_bytes())}" if path.lower().endswith(UNCOMPRESSED) else f"{size}"


def _hidden(name: str) -> bool:
    """What systems leave in folders, unseen."""
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini")


def _reading(prepare: Callable[..., Tensor], mode: str) -> Callable[..., Tensor]:
    def read(sample: Sample, *draws: Any) -> Tensor:
        with opened(sample[0]) as image:
            return prepare(image.convert(mode), *draws)

    return read
