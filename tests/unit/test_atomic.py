"""What is written is there whole or not at all, whatever fails and whenever."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest
from small_disk import fill, small_disk
from torch import nn

import lowrank_bench as lrb
from lowrank_bench.atomic import drafts, remove_drafts
from lowrank_bench.record import TrialRecord
from lowrank_bench.store import FILE_NAME, Store
from lowrank_bench.trial import Trial

SIZE = (3, 16, 16)


def network(channels: int = 64) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, channels, 3), nn.ReLU(), nn.Conv2d(channels, channels, 3)).eval()


def compressed(rank: int, channels: int = 64) -> lrb.Compressed:
    return lrb.compress(network(channels), "channel_svd", ranks={"2": rank}, input_size=SIZE)


def record(seed: int, reason: str = "") -> TrialRecord:
    trial = Trial(task="chars36", model="charnet", method="tucker", ranks=2, recipe="none", seed=seed)
    return TrialRecord(key=trial.key, trial=trial, status="ok", reason=reason)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_of_several_files_all_are_new_or_all_are_old(tmp_path: Path) -> None:
    first, mark = tmp_path / "first", tmp_path / "mark"
    for text in ("old", "new"):
        with drafts(first, mark) as files:
            for file in files:
                file.write_text(text)
        assert (first.read_text(), mark.read_text()) == (text, text)
    with pytest.raises(ZeroDivisionError), drafts(first, mark) as files:
        files[0].write_text("newest")
        raise ZeroDivisionError
    assert (first.read_text(), mark.read_text()) == ("new", "new") and names(tmp_path) == {"first", "mark"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
def test_a_write_that_fails_is_named_and_what_stood_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    compressed(4).save(tmp_path)

    def fail(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(lrb.NotWritten, match=os.strerror(code)):
        compressed(5).save(tmp_path)
    monkeypatch.undo()
    assert lrb.load(tmp_path, network()).plan.layers["2"].ranks == (4,)
    assert names(tmp_path) == {"plan.json", "weights.safetensors"}


@pytest.mark.parametrize("step", range(6))
def test_a_model_cut_off_at_any_step_is_the_old_the_new_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Killed before any of the system's calls that change names: nothing after it happens."""

    class Killed(BaseException):
        pass

    compressed(4).save(tmp_path)
    done = 0

    def until_killed(call):
        def run(*arguments, **keywords):
            nonlocal done
            if done >= step:
                raise Killed
            done += 1
            return call(*arguments, **keywords)

        return run

    with monkeypatch.context() as patch:
        for name in ("replace", "unlink"):
            patch.setattr(Path, name, until_killed(getattr(Path, name)))
        with suppress(Killed):
            compressed(5).save(tmp_path)
    remove_drafts(tmp_path)
    try:
        ranks = lrb.load(tmp_path, network()).plan.layers["2"].ranks
    except lrb.InvalidPlan:
        assert not (tmp_path / "plan.json").exists()
    else:
        assert ranks == ((4,) if step < 1 else (5,))


def test_a_full_disk_is_named_and_loses_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1024) as disk:
        store, folder = Store(disk), disk / "model"
        store.append(record(0))
        compressed(4).save(folder)
        ballast = fill(disk)
        with pytest.raises(lrb.NotWritten, match="make room"):
            store.append(record(1, "x" * 100_000))
        with pytest.raises(lrb.NotWritten, match="make room"):
            compressed(50).save(folder)
        assert [kept.key for kept in store.records()] == [record(0).key]
        assert (disk / FILE_NAME).read_bytes().endswith(b"\n")
        assert lrb.load(folder, network()).plan.layers["2"].ranks == (4,)
        assert names(folder) == {"plan.json", "weights.safetensors"}
        ballast.unlink()
        store.append(record(1))
        assert len(store.records()) == 2


def test_an_append_that_fails_half_way_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, write = Store(tmp_path), os.write
    store.append(record(0))
    before = store.path.read_bytes()

    def half(handle: int, data: bytes) -> int:
        if len(data) < 50:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(lrb.NotWritten, match="No space left"):
        store.append(record(1))
    assert store.path.read_bytes() == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(lrb.NotWritten, match="make its folder writable"):
        compressed(4).save(tmp_path / "model")
    with pytest.raises(lrb.InvalidRecord, match="cannot be written"):
        Store(tmp_path)
