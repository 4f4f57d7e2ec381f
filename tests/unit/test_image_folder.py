"""A folder of one's own images: prepared as the model wants them; what is wrong with it is named before any work."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path

import pytest
import stand_ins
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torchvision import models

import lowrank_bench as lrb
from lowrank_bench.running.stages import run_trial
from lowrank_bench.running.stopwatch import Stopwatch
from lowrank_bench.running.sweep import plan
from lowrank_bench.running.unchanged import check_unchanged
from lowrank_bench.tasks import decoded, image_folder
from lowrank_bench.tasks.catalog import get_task
from lowrank_bench.tasks.decoded import check_images
from lowrank_bench.tasks.preparation import preparation_of
from lowrank_bench.tasks.zoo import pretrained_weights
from lowrank_bench.trial import Trial

SMALL = "timm:test_vit"  # 160x160 images


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOWRANK_BENCH_CACHE", str(tmp_path / "cache"))
    return stand_ins.image_folder(tmp_path / "images")


def test_images_come_in_the_size_that_the_model_was_trained_with(folder: Path) -> None:
    sizes = {SMALL: (3, 160, 160), "torchvision:resnet18": (3, 224, 224), "torchvision:inception_v3": (3, 299, 299)}
    for model, size in sizes.items():
        task = get_task(f"image_folder:{folder}", model)
        images, labels = next(task.batches("test", 3))
        assert task.input_size == size and images.shape == (3, *size) and images.dtype == torch.float32
        assert task.classes == 2 and labels.tolist() == [0, 0, 0]


def test_a_folder_is_one_however_it_is_spelt(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder.parent.parent))
    monkeypatch.setenv("USERPROFILE", str(folder.parent.parent))
    home = f"~/{folder.parent.name}/{folder.name}"
    told = []
    for spelling in (folder.name, f"{folder.name}/", f"./{folder.name}", str(folder), home):
        path = folder.parent / "sweep.toml"
        path.write_text(
            f'[sweep]\ntask = "image_folder:{spelling}"\nmodels = ["{SMALL}"]\nmethods = ["tucker"]\n'
            'budgets = [{macs = 2}]\nrecipe = "none"\n'
        )
        told.append([(trial.key, trial.task) for trial in plan(str(path), "m")[0]])
        assert get_task(f"image_folder:{spelling}", SMALL).classes == 2
    assert all(trials == told[0] for trials in told) and told[0][0][1] == f"image_folder:{folder.name}"


def test_preparation_is_the_librarys_own() -> None:
    image = Image.effect_noise((50, 70), 60).convert("RGB")
    theirs = create_transform(**resolve_data_config({}, pretrained_cfg={"input_size": (3, 160, 160), "crop_pct": 0.95}))
    assert preparation_of(SMALL).input_size == (3, 160, 160)
    assert preparation_of(SMALL).fixed(image).shape == theirs(image).shape
    preset = models.get_model_weights("resnet18").DEFAULT.transforms()
    torch.testing.assert_close(preparation_of("torchvision:resnet18").fixed(image), preset(image))


def test_training_crops_are_inside_the_image_and_mirrored_half_the_time() -> None:
    gradient = Image.linear_gradient("L").rotate(90).convert("RGB")  # dark on one side, bright on the other
    prepare = preparation_of("torchvision:resnet18")
    whole = prepare.varied(gradient, (1.0, 0.5, 0.0, 0.0, 0.9))
    mirrored = prepare.varied(gradient, (1.0, 0.5, 0.0, 0.0, 0.1))
    torch.testing.assert_close(mirrored, whole.flip(2))
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (prepare.mean, prepare.deviation))
    grey = whole * deviation + mean
    assert grey.min() >= 0 and grey.max() <= 1 and grey.max() - grey.min() > 0.9
    part = prepare.varied(gradient, (0.0, 0.5, 0.5, 0.5, 0.9)) * deviation + mean
    assert part.max() - part.min() == pytest.approx(0.08**0.5, abs=0.03)


def test_splits_are_apart_and_training_depends_on_seed_and_epoch_alone(folder: Path) -> None:
    task = get_task(f"image_folder:{folder}", SMALL)
    counts = {split: sum(len(labels) for _, labels in task.batches(split)) for split in ("train", "validation", "test")}
    assert counts == {"train": 36, "validation": 4, "test": 8}
    first, again, other = (next(task.batches("train", 8, seed=1, epoch=e)) for e in (0, 0, 1))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_the_environment_names_the_folder_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWRANK_BENCH_DATA", str(folder))
    assert get_task("image_folder", SMALL).classes == 2


def test_a_missing_folder_says_what_it_should_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOWRANK_BENCH_DATA", raising=False)
    for name in (f"image_folder:{tmp_path}", "image_folder"):
        with pytest.raises(lrb.DataMissing, match="holds train and val"):
            get_task(name, SMALL)


def test_mistakes_in_the_folder_are_named(folder: Path) -> None:
    (folder / "val" / "cow").mkdir()
    with pytest.raises(lrb.InvalidData, match="the classes of train and val differ, cow"):
        get_task(f"image_folder:{folder}", SMALL)
    (folder / "train" / "cow").mkdir()
    with pytest.raises(lrb.InvalidData, match="cow"):  # and no image in it
        get_task(f"image_folder:{folder}", SMALL).check_ready(SMALL)


def test_an_image_that_cannot_be_read_is_named_before_any_work(folder: Path) -> None:
    bad = folder / "train" / "dog" / "007.png"
    bad.write_bytes(b"not an image")
    with pytest.raises(lrb.InvalidData, match=r"dog.007.png is not an image"):
        get_task(f"image_folder:{folder}", SMALL).check_ready(SMALL)
    bad.write_bytes((folder / "train" / "dog" / "006.png").read_bytes()[:-30])  # the header is whole
    with pytest.raises(lrb.InvalidData, match=r"dog.007.png is not an image"):
        list(get_task(f"image_folder:{folder}", SMALL).batches("train"))
    with pytest.raises(lrb.InvalidData, match=r"dog.007.png is not an image"):
        get_task(f"image_folder:{folder}", SMALL).check_ready(SMALL)


def test_a_jpeg_that_was_cut_short_and_one_of_billions_of_pixels_are_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photograph = folder / "val" / "dog" / "photograph.jpg"
    Image.effect_noise((300, 300), 60).save(photograph)
    whole = photograph.read_bytes()
    paths = [str(photograph)]
    check_images(folder, paths)
    photograph.write_bytes(whole[:-500])
    with pytest.raises(lrb.InvalidData, match=r"photograph.jpg .*truncated"):
        check_images(folder, paths)
    photograph.write_bytes(whole + b"\n")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30_000)
    with pytest.raises(lrb.InvalidData, match=r"photograph.jpg .*decompression bomb"):
        check_images(folder, paths)
    with pytest.raises(lrb.InvalidData, match=r"photograph.jpg .*decompression bomb"):
        list(get_task(f"image_folder:{folder}", SMALL).batches("test"))


def test_an_image_is_decoded_once_for_every_change_of_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[str] = []
    problem = decoded._problem
    monkeypatch.setattr(decoded, "_problem", lambda path: looked_at.append(Path(path).name) or problem(path))
    task = get_task(f"image_folder:{folder}", SMALL)
    paths = [path for path, _ in task._all]
    check_images(folder, paths)
    assert len(looked_at) == 48
    check_images(folder, paths)
    assert len(looked_at) == 48
    Image.new("L", (41, 31)).save(folder / "val" / "cat" / "003.png")
    check_images(folder, paths)
    assert looked_at[48:] == ["003.png"]
    (memory,) = (folder.parent / "cache" / "decoded").iterdir()
    memory.write_bytes(b"damaged")
    check_images(folder, paths)
    assert len(looked_at) == 97


def test_another_image_is_another_trial(folder: Path) -> None:
    before = get_task(f"image_folder:{folder}", "torchvision:resnet18").brought("torchvision:resnet18")
    assert before == get_task(f"image_folder:{folder}").brought("torchvision:resnet18")
    (folder / "val" / "dog" / "000.png").rename(folder / "val" / "dog" / "new.png")
    renamed = get_task(f"image_folder:{folder}").brought("torchvision:resnet18")
    Image.new("L", (41, 31)).save(folder / "val" / "dog" / "new.png")
    assert len({before, renamed, get_task(f"image_folder:{folder}").brought("torchvision:resnet18")}) == 3


@pytest.mark.parametrize("name", ["new.bmp", "new.TIFF", "new.ppm"])
def test_another_image_of_the_same_size_in_bytes_is_another_trial(folder: Path, name: str) -> None:
    file = folder / "val" / "dog" / name
    Image.new("L", (41, 31), 20).save(file)
    before, size = get_task(f"image_folder:{folder}").brought("torchvision:resnet18"), file.stat().st_size
    Image.new("L", (41, 31), 30).save(file)
    assert file.stat().st_size == size
    assert before != get_task(f"image_folder:{folder}").brought("torchvision:resnet18")


@pytest.mark.parametrize(("mode", "suffix"), [("I;16", "png"), ("I", "tif"), ("F", "tif"), ("LAB", "tif")])
def test_pixels_that_would_be_cut_off_are_named(folder: Path, mode: str, suffix: str) -> None:
    Image.new(mode, (40, 30)).save(folder / "train" / "dog" / f"deep.{suffix}")
    with pytest.raises(lrb.InvalidData, match=rf"deep.{suffix} holds pixels of mode {mode}.*8 bits a channel"):
        get_task(f"image_folder:{folder}", SMALL).check_ready(SMALL)


def test_images_that_changed_since_a_run_was_planned_stop_a_trial_and_no_timing(folder: Path) -> None:
    task = get_task(f"image_folder:{folder}")
    versions = {"brought": task.brought("torchvision:resnet18")}
    trial = Trial(
        task="image_folder", model="torchvision:resnet18", method="identity", recipe="none", versions=versions
    )
    check_unchanged(trial, task)
    (folder / "val" / "dog" / "000.png").unlink()
    later = get_task(f"image_folder:{folder}")
    check_unchanged(trial, later, timing=True)
    with pytest.raises(lrb.InvalidInput, match="the images changed since this run was planned: run the command again"):
        check_unchanged(trial, later)


def test_files_that_are_no_images_by_their_names_are_counted_and_named(folder: Path) -> None:
    for hidden in ("train/.DS_Store", "train/dog/._000.png", "val/cat/Thumbs.db"):
        (folder / hidden).write_bytes(b"")
    (folder / "train" / "dog" / ".checkpoints").mkdir()
    (folder / "train" / "dog" / ".checkpoints" / "000.png").write_bytes(b"")
    get_task(f"image_folder:{folder}", SMALL).brought(SMALL)
    for name in ("dog/1.heic", "cat/2", "3.png"):
        (folder / "train" / name).write_bytes(b"")
    with pytest.raises(
        lrb.InvalidData, match=r"train: 3 files would be passed over, 3.png, cat.2, dog.1.heic: .*\.jpe?g"
    ):
        get_task(f"image_folder:{folder}", SMALL).check_ready(SMALL)


OWN = """
import timm
from torch import nn

def grey():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

grey.input_size = (1, 20, 24)

class Colour(nn.Sequential):
    input_size = [3, 20, 20]

def unknown():
    return Colour()

def wrong():
    return Colour()

wrong.input_size = 64

def half():
    return Colour()

half.input_size, half.mean, half.std = (3, 20, 20), (0.5, 0.5, 0.5), [0.25] * 3
half.crop_pct, half.interpolation = 1, "nearest"

def vit():
    return timm.create_model("test_vit", num_classes=2)

def small_vit():
    return timm.create_model("test_vit", num_classes=2, img_size=64)

small_vit.input_size = (3, 64, 64)

def grey_vit():
    return timm.create_model("test_vit", num_classes=2, in_chans=1)

grey_vit.input_size, grey_vit.crop_pct = (1, 160, 160), 0.5
"""


def test_a_network_of_ones_own_says_what_images_it_takes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "sized_nets.py").write_text(OWN)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    name = f"image_folder:{folder}"
    for model, size in {"grey": (1, 20, 24), "Colour": (3, 20, 20), "unknown": (3, 224, 224)}.items():
        task = get_task(name, f"sized_nets:{model}")
        assert task.input_size == size
        assert all(next(task.batches(split, 2))[0].shape == (2, *size) for split in ("train", "test"))
    get_task(name, "sized_nets:grey").check_ready("sized_nets:grey")
    light, _ = next(get_task(name, "sized_nets:grey").batches("test", 8))
    torch.testing.assert_close(light[[0, -1], 0, 0, 0], (torch.tensor([60, 120]) / 255 - 0.449) / 0.226)
    with pytest.raises(lrb.InvalidInput, match=r"sized_nets:wrong.*input_size = 64: \(channels, height, width\)"):
        get_task(name, "sized_nets:wrong")
    del sys.modules["sized_nets"]


def test_a_network_of_ones_own_says_how_its_images_are_prepared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "sized_nets.py").write_text(OWN)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    name, grey = f"image_folder:{folder}", torch.tensor(60) / 255
    images, _ = next(get_task(name, "sized_nets:half").batches("test", 1))
    torch.testing.assert_close(images, ((grey - 0.5) / 0.25).expand(1, 3, 20, 20))
    varied, _ = next(get_task(name, "sized_nets:half").batches("train", 36))
    assert set(varied.unique().tolist()) == {float((value / 255 - 0.5) / 0.25) for value in torch.tensor([60, 120])}
    found = {model: get_task(name, f"sized_nets:{model}")._preparation for model in ("vit", "small_vit", "grey_vit")}
    wanted = {"vit": (3, 160, 160), "small_vit": (3, 64, 64), "grey_vit": (1, 160, 160)}
    assert {model: made.input_size for model, made in found.items()} == wanted
    assert found["vit"].mean == found["small_vit"].mean == (0.5, 0.5, 0.5)
    assert found["grey_vit"].mean == (0.449,), "its library speaks of three channels"
    picture = Image.effect_noise((200, 200), 60)
    theirs = create_transform(**resolve_data_config({}, pretrained_cfg=found_config("vit")), is_training=False)
    torch.testing.assert_close(found["vit"].fixed(picture.convert("RGB")), theirs(picture.convert("RGB")))
    del sys.modules["sized_nets"]


def found_config(model: str) -> dict[str, object]:
    config: dict[str, object] = getattr(sys.modules["sized_nets"], model)().pretrained_cfg
    return config


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("mean = 0.5", r"its mean = 0.5: a number for every channel"),
        ("mean = (0.5,)", r"its mean = \(0.5,\) is for 1 channels, and its images have 3"),
        ("std = (0.5, 0.5, 0)", r"its std = \(0.5, 0.5, 0\): a number above 0"),
        ("std = (0.5, 0.5, float('nan'))", r"its std = .*nan\): a number above 0"),
        ("crop_pct = 1.5", r"its crop_pct = 1.5: a number above 0 and up to 1"),
        ("interpolation = 'cubic'", r"its interpolation = 'cubic': one of bicubic, bilinear"),
    ],
)
def test_what_is_no_preparation_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, said: str, words: str) -> None:
    (folder / "odd_nets.py").write_text(f"from torch import nn\ndef net():\n    return nn.Flatten()\nnet.{said}\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(lrb.InvalidInput, match=rf"'odd_nets:net': {words}"):
        get_task(f"image_folder:{folder}", "odd_nets:net")
    del sys.modules["odd_nets"]


def test_what_cannot_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "val" / "dog" / "gone.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(lrb.InvalidData, match=r"dog.gone.png cannot be read \(No such file or directory\): .*link"):
        get_task(f"image_folder:{folder}").brought("torchvision:resnet18")
    (folder / "val" / "dog" / "gone.png").unlink()
    (folder / "train" / "dog" / "deep").mkdir()
    scandir = os.scandir
    for closed in ("train", "train/dog/deep"):

        def shut(place: str | Path = ".", closed: Path = folder / closed) -> object:
            if Path(place) == closed:
                raise PermissionError(errno.EACCES, "Permission denied", str(place))
            return scandir(place)

        with monkeypatch.context() as patch, pytest.raises(lrb.InvalidData, match=rf"{closed} cannot be read \(Perm"):
            patch.setattr(os, "scandir", shut)
            get_task(f"image_folder:{folder}").brought("torchvision:resnet18")


def test_with_a_folder_of_test_images_those_of_val_are_for_validation(folder: Path) -> None:
    before = get_task(f"image_folder:{folder}").brought(SMALL)
    shutil.copytree(folder / "val", folder / "test")
    (folder / "test" / "cat" / "000.png").unlink()
    task = get_task(f"image_folder:{folder}", SMALL)
    assert task.brought(SMALL) != before
    counts = {split: sum(len(labels) for _, labels in task.batches(split)) for split in ("train", "validation", "test")}
    assert counts == {"train": 40, "validation": 8, "test": 7}
    (folder / "test" / "dog" / "000.png").write_bytes(b"not an image")
    with pytest.raises(lrb.InvalidData, match=r"test.dog.000.png is not an image"):
        task.check_ready(SMALL)
    shutil.rmtree(folder / "test" / "dog")
    with pytest.raises(lrb.InvalidData, match=r"classes of train and val and test differ, dog: .*rename test"):
        get_task(f"image_folder:{folder}", SMALL)


def test_other_pretrained_weights_of_the_library_are_another_trial(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = get_task(f"image_folder:{folder}")
    assert pretrained_weights("torchvision:resnet50").startswith("IMAGENET1K_V2 https")
    assert pretrained_weights("timm:resnet18").startswith("a1_in1k timm/resnet18.a1_in1k ")
    assert len({task.brought(model) for model in ("timm:resnet18", "timm:resnet18.fb_swsl_ig1b_ft_in1k")}) == 2
    before = task.brought("torchvision:resnet18")
    monkeypatch.setattr(image_folder, "pretrained_weights", lambda _name: "IMAGENET1K_V3")
    assert task.brought("torchvision:resnet18") != before


def test_statistics_are_taken_on_training_images_prepared_as_test_images_are(folder: Path) -> None:
    for image in (folder / "train").rglob("*.png"):
        Image.effect_noise((40, 30), 60).save(image)
    task = get_task(f"image_folder:{folder}", SMALL)
    (images, labels), (again, _) = (next(task.calibration_batches(seed=seed, limit=30)) for seed in (0, 0))
    assert torch.equal(images, again) and len(labels) == 30
    with Image.open(folder / "train" / "cat" / "000.png") as picture:
        wanted = task._preparation.fixed(picture.convert("RGB"))
    assert any(torch.equal(image, wanted) for image in next(task.calibration_batches(seed=0, limit=36))[0])


def test_batch_norms_of_the_untouched_control_stay_as_they_came(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ("from torch import nn", "def net():", "    body = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)")
    end = "    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))"
    (folder / "normed_nets.py").write_text("\n".join((*lines, end, "net.input_size = (3, 20, 20)")))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    models, dense = folder / "models", get_task("speed", "normed_nets:net").load("normed_nets:net")
    for method, ranks in (("identity", None), ("channel_svd", {"0": 2})):
        trial = Trial(task=f"image_folder:{folder}", model="normed_nets:net", method=method, ranks=ranks, recipe="none")
        run_trial(trial, models, Stopwatch(lambda *_: None))
        norm = lrb.load(models / trial.key, dense).model[1]
        assert torch.equal(norm.running_mean, dense[1].running_mean) == (method == "identity")
    del sys.modules["normed_nets"]
