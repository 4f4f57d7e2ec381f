"""A folder of the user's images, one folder for each class below ``train`` and ``val``, as ImageNet comes."""

from __future__ import annotations

import copy
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from lowrank_bench.errors import DataMissing, InvalidData
from lowrank_bench.tasks.decoded import THREADS, check_images, opened
from lowrank_bench.tasks.held_out import held_out
from lowrank_bench.tasks.open_task import OpenTask, is_code, split_model
from lowrank_bench.tasks.own_model import own_input_size
from lowrank_bench.tasks.places import find_folder
from lowrank_bench.tasks.preparation import Preparation, preparation_of
from lowrank_bench.tasks.task import Batch, Split, evenly
from lowrank_bench.tasks.variation import shuffled, uniform

REMEDY = (
    "name a folder as image_folder:FOLDER, or set LOWRANK_BENCH_DATA to it; it holds train and val, and each of them a "
    "folder of images for every class"
)
Sample = tuple[str, int]


class ImageFolder(OpenTask):
    """The user's own images, image_folder:FOLDER with train/CLASS and val/CLASS, prepared as the model wants them.

    The test images are those of ``val``; validation is 5,000 of ``train`` (a tenth, of a small set), always the same.
    A network of timm or torchvision gets the images as its library prepares them, any other as timm does by default, at
    the ``input_size`` that its factory has, else 3x224x224. Training crops are those of Szegedy et al. 2015, a random 8
    to 100 % of the image, and half are mirrored.
    """

    name, version = "image_folder", 1
    classes, input_size = 0, (3, 224, 224)

    def __init__(self, argument: str = "") -> None:
        """``argument``: the folder; without it that of LOWRANK_BENCH_DATA."""
        super().__init__()
        self.argument = argument
        self._preparation: Preparation | None = None

    def for_model(self, model: str) -> Self:
        """The task with that model's size and preparation of images, and with the number of classes in the folder.
        Raises what check_model raises, DataMissing and InvalidData.
        """
        self.check_model(model)
        bound = copy.copy(self)
        name, _ = split_model(model)
        bound._preparation = preparation_of(name, own_input_size(name) if is_code(name) else None)
        bound.input_size = bound._preparation.input_size
        bound.classes = len(self._classes)
        return bound

    def check_ready(self, model: str) -> None:
        """See Task.check_ready; every image is decoded once, see check_images."""
        check_images(self._folder, [path for path, _ in (*self._train, *self._test)])
        super().check_ready(model)

    def brought(self, model: str) -> int:
        """Checksum of the weights and code, and of the names and sizes of all images."""
        facts = (
            f"{os.path.relpath(path, self._folder)} {os.path.getsize(path)}" for path, _ in [*self._train, *self._test]
        )
        return zlib.crc32("\n".join(facts).encode(), super().brought(model))

    def batches(
        self, split: Split, batch_size: int = 256, *, seed: int = 0, epoch: int = 0, limit: int | None = None
    ) -> Iterator[Batch]:
        """Iterate over a split; see Task.batches."""
        prepare = self._preparation or preparation_of("")
        samples = self._test if split == "test" else self._parts[split]
        rows = evenly(len(samples), limit)
        words = np.random.PCG64([seed, epoch])
        if split == "train":
            rows = rows[shuffled(words, len(rows))]
        with ThreadPoolExecutor(THREADS) as pool:
            for some in rows.split(batch_size):
                chosen = [samples[row] for row in some.tolist()]
                if split == "train":
                    draws = uniform(words, 5 * len(chosen)).reshape(len(chosen), 5)
                    images = list(pool.map(_reading(prepare.varied, prepare.mode), chosen, draws))
                else:
                    images = list(pool.map(_reading(prepare.fixed, prepare.mode), chosen))
                yield torch.stack(images), torch.tensor([label for _, label in chosen])

    def group_sizes(self, split: Split) -> None:
        """Every image stands on its own."""

    @cached_property
    def _folder(self) -> Path:
        def holds(folder: Path) -> bool:
            return (folder / "train").is_dir() and (folder / "val").is_dir()

        if not self.argument:
            return find_folder(self.name, (), holds, REMEDY)
        folder = Path(self.argument)
        if not holds(folder):
            raise DataMissing(f"task 'image_folder:{folder}': there are no folders train and val in {folder}: {REMEDY}")
        return folder

    @cached_property
    def _classes(self) -> list[str]:
        train, val = (set(_subfolders(self._folder / part)) for part in ("train", "val"))
        if train != val or not train:
            odd = sorted(train ^ val)
            raise InvalidData(
                f"{self._folder}: the classes of train and val differ, {', '.join(odd[:5]) or 'there are none'}: every "
                "class wants a folder in both, of the same name"
            )
        return sorted(train)

    @cached_property
    def _train(self) -> list[Sample]:
        return self._samples("train")

    @cached_property
    def _test(self) -> list[Sample]:
        return self._samples("val")

    @cached_property
    def _parts(self) -> dict[Split, list[Sample]]:
        validation, train = ([self._train[row] for row in rows.tolist()] for rows in held_out(len(self._train)))
        return {"validation": validation, "train": train}

    def _samples(self, part: str) -> list[Sample]:
        from torchvision.datasets.folder import IMG_EXTENSIONS

        folder = self._folder / part
        found: list[Sample] = []
        astray = [entry.name for entry in folder.iterdir() if entry.is_file() and not _hidden(entry.name)]
        for number, name in enumerate(self._classes):
            files = _files_below(folder / name)
            images = [path for path in files if path.lower().endswith(IMG_EXTENSIONS)]
            if not images:
                raise InvalidData(f"{folder / name} holds no image: every class wants some in train and in val")
            found += [(path, number) for path in images]
            astray += [os.path.relpath(path, folder) for path in files if not path.lower().endswith(IMG_EXTENSIONS)]
        if astray:
            raise InvalidData(
                f"{folder}: {len(astray)} {'files' if len(astray) > 1 else 'file'} would be passed over, "
                f"{', '.join(sorted(astray)[:3])}{', ...' if len(astray) > 3 else ''}: images are "
                f"{', '.join(IMG_EXTENSIONS)} in a class's folder; convert, move or remove them"
            )
        return found


def _subfolders(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir() if entry.is_dir() and not _hidden(entry.name)]


def _files_below(folder: Path) -> list[str]:
    """Those that are not hidden, in the order of torchvision's ImageFolder."""
    return [
        os.path.join(place, name)
        for place, _, names in sorted(os.walk(folder, followlinks=True))
        if not any(map(_hidden, Path(place).relative_to(folder).parts))
        for name in sorted(names)
        if not _hidden(name)
    ]


def _hidden(name: str) -> bool:
    """What systems leave in folders, unseen."""
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini")


def _reading(prepare: Callable[..., Tensor], mode: str) -> Callable[..., Tensor]:
    def read(sample: Sample, *draws: Any) -> Tensor:
        with opened(sample[0]) as image:
            return prepare(image.convert(mode), *draws)

    return read
