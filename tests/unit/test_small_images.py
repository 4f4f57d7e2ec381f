"""Fashion-MNIST and CIFAR: small files in the formats of the real ones; and the real Fashion-MNIST where it is."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import stand_ins
import torch

import lowrank_bench as lrb
from lowrank_bench.tasks import places
from lowrank_bench.tasks.catalog import get_task
from lowrank_bench.tasks.cifar import Cifar10, Cifar100
from lowrank_bench.tasks.fashion_mnist import FashionMnist, read_idx
from lowrank_bench.tasks.small_images import SmallImages

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def packed(*shape: int) -> bytes:
    """Zeros in MNIST's format."""
    return gzip.compress(stand_ins.idx(np.zeros(shape, np.uint8)), mtime=0)  # in the names of tests: no time of day


IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


@pytest.fixture
def fashion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FashionMnist:
    monkeypatch.setenv("LOWRANK_BENCH_DATA", str(stand_ins.fashion_mnist(tmp_path / "files")))
    return FashionMnist()


def pixels(task: SmallImages, images: torch.Tensor) -> torch.Tensor:
    """Back to bytes."""
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (task.mean, task.deviation))
    return ((images * deviation + mean) * 255).round()


def numbers(task: SmallImages, images: torch.Tensor) -> list[int]:
    """Which images they are: the byte in their first corner, two pixels in when they are not varied."""
    return [int(value) for value in pixels(task, images)[:, 0, 2, 2]]


def test_images_are_padded_in_the_middle_and_normalised(fashion: FashionMnist) -> None:
    images, labels = next(fashion.batches("test", 30))
    assert images.shape == (30, 1, 32, 32) and images.dtype == torch.float32 and labels.dtype == torch.int64
    shown = pixels(fashion, images)
    assert torch.equal(shown[:, 0, 3:30, 3:30], (20.0 * labels)[:, None, None].expand(-1, 27, 27))
    frame = torch.ones(32, 32, dtype=torch.bool)
    frame[2:30, 2:30] = False
    assert (shown[:, 0, frame] == 0).all()


def test_validation_is_a_part_of_the_training_images_and_always_the_same(fashion: FashionMnist) -> None:
    (held, labels), (again, _) = (next(fashion.batches("validation", 500, seed=seed)) for seed in (0, 1))
    assert len(held) == 20 and torch.equal(held, again)
    assert (labels == torch.tensor(numbers(fashion, held)) % 10).all()
    trained = torch.cat([labels for _, labels in fashion.batches("train", 64)])
    everything = torch.cat([trained, labels])
    assert everything.bincount().tolist() == [20] * 10


def test_training_images_are_moved_and_mirrored_and_depend_on_seed_and_epoch_alone(fashion: FashionMnist) -> None:
    def first(**where: int) -> torch.Tensor:
        return next(fashion.batches("train", 180, **where))[0]

    assert torch.equal(first(seed=1, epoch=2), first(seed=1, epoch=2))
    assert not torch.equal(first(seed=1, epoch=2), first(seed=1, epoch=3))
    bright = pixels(fashion, first()) > 0
    tops = {int(image.any(1).nonzero()[0]) for image in bright[:, 0] if image.sum() > 700}
    assert tops == {0, 1, 2, 3, 4}


def test_every_second_training_image_is_mirrored(fashion: FashionMnist) -> None:
    images, labels = next(fashion.batches("train", 180))
    shown = pixels(fashion, images)[labels == 0][:, 0]  # black but for the pixel in the upper left corner
    lit = [image.nonzero()[0].tolist() for image in shown if image.any()]
    left = sum(column < 16 for _, column in lit)
    assert 0 < left < len(lit)


def test_limit_draws_evenly(fashion: FashionMnist) -> None:
    images, _ = next(fashion.batches("test", 500, limit=10))
    assert numbers(fashion, images) == list(range(0, 30, 3))


def test_torchvisions_own_folder_gives_the_same_images(
    fashion: FashionMnist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "theirs" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for file in (tmp_path / "files").iterdir():
        (raw / file.name.removesuffix(".gz")).write_bytes(gzip.decompress(file.read_bytes()))
    ours = fashion.read(training=False)
    monkeypatch.setenv("LOWRANK_BENCH_DATA", str(tmp_path / "theirs"))
    theirs = FashionMnist().read(training=False)
    assert torch.equal(ours.images, theirs.images) and torch.equal(ours.labels, theirs.labels)


def test_missing_data_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "SYSTEM", tmp_path)
    monkeypatch.setenv("LOWRANK_BENCH_DATA", str(tmp_path))
    for task, words in {
        "fashion_mnist": "apt-get install dataset-fashion-mnist.*LOWRANK_BENCH_DATA",
        "cifar10": "cifar-10-binary.tar.gz.*LOWRANK_BENCH_DATA",
        "cifar100": "cifar-100-binary.tar.gz.*pickled version is not read",
    }.items():
        with pytest.raises(lrb.DataMissing, match=words):
            next(get_task(task).batches("test"))


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        (IMAGES, b"no gzip", "cannot be read"),
        (IMAGES, gzip.compress(b"\0\0\x08", mtime=0), "not a whole file"),
        (IMAGES, gzip.compress(b"\0\0\x08\x03\0", mtime=0), "not a whole file"),
        (IMAGES, gzip.compress(b"\0\0\x08\x46" + 70 * b"\0\0\0\1" + b"\0", mtime=0), "not a whole file"),
        (IMAGES, packed(200, 28, 28)[:-9], "cannot be read"),
        (IMAGES, packed(200, 20, 20), r"\(200, 20, 20\)"),
        (LABELS, packed(199), "200 training images and 199"),
        (LABELS, gzip.compress(stand_ins.idx(stand_ins.labels(200, 11)), mtime=0), "labels from 0 to 10"),
    ],
)
def test_damaged_files_are_named(fashion: FashionMnist, tmp_path: Path, file: str, content: bytes, words: str) -> None:
    (tmp_path / "files" / file).write_bytes(content)
    with pytest.raises(lrb.InvalidData, match=words):
        next(fashion.batches("train"))


def test_a_damaged_test_file_is_named_before_any_work(fashion: FashionMnist, tmp_path: Path) -> None:
    (tmp_path / "files" / "t10k-images-idx3-ubyte.gz").write_bytes(b"no gzip")
    with pytest.raises(lrb.InvalidData, match="t10k-images"):
        fashion.check_ready("resnet18")


@pytest.mark.parametrize("task", [Cifar10(), Cifar100()], ids=["cifar10", "cifar100"])
def test_the_binary_version_of_cifar_is_read(
    task: Cifar10 | Cifar100, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOWRANK_BENCH_DATA", str(stand_ins.cifar(task, tmp_path)))
    images, labels = next(task.batches("test", 40))
    assert labels.tolist() == stand_ins.labels(40, task.classes).tolist()
    assert images.shape == (40, 3, 32, 32)
    assert pixels(task, images)[:, :, 7, 9].tolist() == [[n, 2 * n, 0] for n in labels.tolist()]
    count = len(task.training_files) * 40
    assert sum(len(labels) for _, labels in task.batches("train")) == count - count // 10


def test_a_cifar_file_cut_short_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWRANK_BENCH_DATA", str(stand_ins.cifar(Cifar10(), tmp_path)))
    path = tmp_path / Cifar10.folder / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(lrb.InvalidData, match=r"test_batch.bin has \d+ bytes"):
        next(Cifar10().batches("test"))


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_real_fashion_mnist_is_what_its_authors_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOWRANK_BENCH_DATA", raising=False)
    task = FashionMnist()
    train = task.read(training=True)
    assert train.images.shape == (60_000, 1, 28, 28)
    assert train.labels.bincount().tolist() == [6_000] * 10
    values = train.images.float() / 255
    assert values.mean() == pytest.approx(task.mean[0], abs=1e-4)
    assert values.std() == pytest.approx(task.deviation[0], abs=1e-4)
    assert read_idx(DEBIAN / "t10k-labels-idx1-ubyte.gz").bincount().tolist() == [1_000] * 10
    assert sum(len(labels) for _, labels in task.batches("validation")) == 5_000
