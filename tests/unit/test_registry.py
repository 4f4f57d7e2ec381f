"""Methods are found by scan, by entry point and in folders; one that is broken stops nobody else."""

from __future__ import annotations

import importlib.metadata
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import lowrank_bench as lrb
from lowrank_bench.compression import registry
from lowrank_bench.compression.method import LayerMethod

PLUG_IN = """
import copy
from lowrank_bench.compression.method import Method

class Mine(Method):
    "Mine."
    name, version = "mine", 1
    def compress(self, model, job): return copy.deepcopy(model)
"""


@pytest.fixture(autouse=True)
def no_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_folders", [])


def test_the_package_lists_its_methods_when_called_and_holds_them_as_modules() -> None:
    import lowrank_bench.methods.tucker as module

    assert lrb.methods()["tucker"] is module.Tucker
    assert lrb.methods() == registry.methods() and list(lrb.methods()) == sorted(lrb.methods())


def test_no_built_in_method_is_broken() -> None:
    assert registry.broken() == {}


def test_a_folder_adds_its_methods(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUG_IN)
    registry.add_methods_folder(tmp_path)
    assert registry.method_class("mine").name == "mine"
    with pytest.raises(lrb.InvalidInput, match="not a folder"):
        registry.add_methods_folder(tmp_path / "nowhere")


def test_an_entry_point_adds_its_method(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "somebodys_package.py").write_text(PLUG_IN)
    monkeypatch.syspath_prepend(tmp_path)
    points = [
        importlib.metadata.EntryPoint("mine", "somebodys_package:Mine", registry.GROUP),
        importlib.metadata.EntryPoint("gone", "nothing_of_that_name:Gone", registry.GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    assert "mine" in lrb.methods()
    assert "nothing_of_that_name" in registry.broken()["entry point gone"]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise RuntimeError('no')", "RuntimeError: no"),
        ("syntax error", "SyntaxError"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        (PLUG_IN.replace('name, version = "mine", 1', 'name = "mine"'), "version"),
        (PLUG_IN.replace('"mine", 1', '"tucker", 1'), "already taken"),
        (PLUG_IN.replace("def compress", "def compres"), "Mine does not implement compress"),
    ],
)
def test_a_broken_plug_in_is_named_and_the_others_work(tmp_path: Path, code: str, why: str) -> None:
    (tmp_path / f"broken_{abs(hash(code))}.py").write_text(code)
    registry.add_methods_folder(tmp_path)
    assert why in next(iter(registry.broken().values()))
    assert "tucker" in lrb.methods()


def test_an_abstract_base_without_a_name_is_no_method_and_not_broken(tmp_path: Path) -> None:
    base = PLUG_IN.replace('name, version = "mine", 1', "").replace("Mine", "Base").replace("def compress", "def half")
    mine = "class Mine(Base):\n    'Mine.'\n    name, version = 'mine', 1\n    compress = Base.half\n"
    (tmp_path / "mine.py").write_text(base + mine)
    registry.add_methods_folder(tmp_path)
    assert "mine" in lrb.methods() and registry.broken() == {}


def test_an_unknown_method_suggests_the_nearest() -> None:
    with pytest.raises(lrb.UnknownName, match="did you mean 'jaderberg'"):
        registry.method_class("jaderburg")


def test_a_name_that_two_methods_have_stands_for_neither_where_the_user_named_the_second(tmp_path: Path) -> None:
    """An edited copy of a built-in would be recorded with the built-in's numbers."""
    (tmp_path / "copied.py").write_text(PLUG_IN.replace('"mine", 1', '"tucker", 99'))
    registry.add_methods_folder(tmp_path)
    with pytest.raises(lrb.InvalidInput, match=r"lowrank_bench.methods.tucker and of copied.py"):
        registry.method_class("tucker")
    assert registry.method_class("jaderberg").name == "jaderberg"


def test_a_file_that_fails_is_run_once_and_again_when_it_changed(tmp_path: Path) -> None:
    ran = "with open(__file__ + '.ran', 'a') as told: told.write('once ')"
    (tmp_path / "script.py").write_text(f"{ran}\nraise SystemExit")
    registry.add_methods_folder(tmp_path)
    assert "script.py" in registry.broken() and "script.py" in registry.broken() and "tucker" in registry.methods()
    assert (tmp_path / "script.py.ran").read_text() == "once "
    (tmp_path / "script.py").write_text(PLUG_IN.replace("mine", "mended"))
    assert "mended" in registry.methods()


def test_a_plug_in_imports_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "helpers_beside.py").write_text("VERSION = 7")
    (tmp_path / "helped.py").write_text(
        "from helpers_beside import VERSION" + PLUG_IN.replace('"mine", 1', '"helped", VERSION')
    )
    registry.add_methods_folder(tmp_path)
    assert registry.method_class("helped").version == 7
    assert str(tmp_path) not in sys.path


class Nameless(lrb.methods()["tucker"]):  # type: ignore[misc]
    name = None


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (Nameless, "does not set 'name'"),
        (LayerMethod, "does not set 'name'"),
        (torch.nn.Conv2d, "does not derive"),
        (lrb.methods()["tucker"](), "its class is wanted"),
        (None, "its class is wanted"),
    ],
)
def test_what_is_no_method_is_refused_with_what_is_wanted(method: Any, words: str) -> None:
    layer = torch.nn.Conv2d(4, 4, 3)
    with pytest.raises(lrb.InvalidInput, match=words):
        lrb.factorize(layer, method, 2)
    with pytest.raises(lrb.InvalidInput, match=words):
        lrb.compress(torch.nn.Sequential(layer), method, ranks=2, input_size=(4, 8, 8))


def test_an_error_of_a_name_crosses_processes_as_it_is() -> None:
    with pytest.raises(lrb.UnknownName) as raised:
        registry.method_class("tukker")
    again = pickle.loads(pickle.dumps(raised.value))
    assert (type(again), str(again)) == (lrb.UnknownName, str(raised.value))
