"""Fashion-MNIST (Xiao et al. 2017): 28x28 grey pictures of clothes in ten classes, and four networks trained on it."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lowrank_bench.errors import InvalidData
from lowrank_bench.recipe import Recipe
from lowrank_bench.tasks.baseline import Baseline
from lowrank_bench.tasks.garipov import AllConv, ConvFC
from lowrank_bench.tasks.open_task import ANY_MODEL
from lowrank_bench.tasks.places import DATA_VARIABLE, find_folder
from lowrank_bench.tasks.small_images import Labelled, SmallImages

SIDE = 28
REMEDY = (
    "on Debian or Ubuntu `apt-get install dataset-fashion-mnist`; elsewhere put the four *-ubyte.gz files of "
    f"https://github.com/zalandoresearch/fashion-mnist into a folder and set {DATA_VARIABLE} to it; torchvision's "
    "`FashionMNIST(FOLDER, download=True)` makes one too"
)


def resnet18() -> nn.Module:
    """timm's ResNet-18 with a 3x3 stem of stride 1 in place of the 7x7 of stride 2: (N, 1, 32, 32) to (N, 10)."""
    import timm

    model: nn.Module = timm.create_model("resnet18", in_chans=1, num_classes=10)
    stem = nn.Conv2d(1, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")  # as timm's own
    model.conv1 = stem
    return model


def vgg11_narrow() -> nn.Module:
    """torchvision's VGG-11 with batch norm, half as wide, and one linear layer behind it: (N, 1, 32, 32) to (N, 10)."""
    from torchvision.models.vgg import VGG, make_layers

    stages = [32, "M", 64, "M", 128, 128, "M", 256, 256, "M", 256, 256, "M"]
    features = make_layers(stages, batch_norm=True)
    features[0] = nn.Conv2d(1, 32, 3, padding=1)
    model: nn.Module = VGG(features, num_classes=10)
    model.avgpool = nn.Identity()  # 1x1 already
    model.classifier = nn.Linear(256, 10)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's own
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def _baseline(name: str, build: Callable[[], nn.Module], epochs: int, expected: float) -> Baseline:
    recipe = Recipe(
        name=name,
        epochs=epochs,
        images_per_epoch=55_000,
        batch_size=128,
        learning_rate=2e-3,
        weight_decay=0.05,
        schedule="one-cycle",
    )
    return Baseline(build, recipe, expected)


class FashionMnist(SmallImages):
    """Clothes in ten classes, 28x28 grey padded to 32x32; 60,000 images to train on and 10,000 to test."""

    name, version = "fashion_mnist", 1
    classes, input_size = 10, (1, 32, 32)
    mean, deviation = (0.2860,), (0.3530,)  # of the training images
    baselines: ClassVar[dict[str, Baseline]] = {
        "resnet18": _baseline("resnet18", resnet18, epochs=10, expected=92.5),
        "vgg11_narrow": _baseline("vgg11_narrow", vgg11_narrow, epochs=20, expected=92.0),
        "allconv": _baseline("allconv", lambda: AllConv(channels=1), epochs=8, expected=91.0),
        "convfc": _baseline("convfc", lambda: ConvFC(channels=1), epochs=6, expected=91.0),
    }
    models: ClassVar[tuple[str, ...]] = (*baselines, *ANY_MODEL)

    def read(self, training: bool) -> Labelled:
        """Read the folder that torchvision made, or one with the four raw files. Raises DataMissing and InvalidData."""
        folder = find_folder(self.name, ("fashion-mnist",), _holds, REMEDY)
        images, labels = _torchvision(folder, training) if _is_torchvisions(folder) else _raw(folder, training)
        if images.dim() != 3 or images.shape[1:] != (SIDE, SIDE) or labels.dim() != 1:
            shapes = f"images {tuple(images.shape)} and labels {tuple(labels.shape)}"
            raise InvalidData(f"{folder} holds {shapes}, not (N, {SIDE}, {SIDE}) and (N,): {REMEDY}")
        return Labelled(images[:, None], labels.long())


def read_idx(path: Path) -> Tensor:
    """Read a gzipped file of unsigned bytes in MNIST's format: two zeros, 8, the number of dimensions, each of them in
    four bytes, highest first, then the values. Raises InvalidData.
    """
    try:
        with gzip.open(path) as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidData(f"{path} cannot be read ({error}): get the file again") from None
    dimensions = content[3] if len(content) > 3 else 0
    start = 4 + 4 * dimensions
    whole = content[:3] == b"\0\0\x08" and 1 <= dimensions <= 3 and len(content) >= start
    shape = tuple(int(size) for size in np.frombuffer(content[4:start], ">u4")) if whole else ()
    if not whole or len(content) != start + math.prod(shape):
        raise InvalidData(f"{path} is not a whole file of MNIST's format: get the file again")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy())


def _names(training: bool) -> tuple[str, str]:
    stem = "train" if training else "t10k"
    return f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte"


def _holds(folder: Path) -> bool:
    raw = all((folder / f"{name}.gz").is_file() for training in (True, False) for name in _names(training))
    return raw or _is_torchvisions(folder)


def _is_torchvisions(folder: Path) -> bool:
    raw = folder / "FashionMNIST" / "raw"
    return all((raw / name).is_file() for training in (True, False) for name in _names(training))


def _raw(folder: Path, training: bool) -> tuple[Tensor, ...]:
    return tuple(read_idx(folder / f"{name}.gz") for name in _names(training))


def _torchvision(folder: Path, training: bool) -> tuple[Tensor, Tensor]:
    from torchvision.datasets import FashionMNIST

    try:
        made = FashionMNIST(str(folder), train=training)
    except (OSError, RuntimeError, ValueError, LookupError, AssertionError) as error:
        raise InvalidData(f"{folder / 'FashionMNIST'} cannot be read ({error}): get the files again") from None
    return made.data, made.targets
