"""Hostile input for every reader: valid documents damaged in all ways; only named errors may come out."""

from __future__ import annotations

import json
import tomllib
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from sweep_text import SWEEP
from synthetic_records import measurement_record, trial, trial_record
from torch import nn

import lowrank_bench as lrb
from lowrank_bench.compression.model import PLAN, WEIGHTS
from lowrank_bench.running.sweep import plan
from lowrank_bench.store import FILE_NAME, Store

SIZE = (3, 8, 8)

# What lives on boundaries: of types, of paths, of shells, of numbers.
BIG = [2**31, 2**63, 2**64, 10**30, 1e308, float("inf"), float("nan")]
HOSTILE = ["", "\x00", "../../x", "/etc/passwd", "$(id)", "`id`", "; id", "a\nb", "__class__", "seed", "self"]
ODD = [None, True, -1, 0, -0.0, "\ud7ff", "\U0001d7dc", "x" * 5000, [], {}]
AWKWARD = st.sampled_from([*BIG, *HOSTILE, *ODD])
VALUES = st.recursive(
    AWKWARD | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.just("seed"), inner, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def damaged(draw: st.DrawFn, document: Any) -> Any:
    """A document with one to three of its values replaced, removed or joined by others, wherever they are."""
    document = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 3))):
        place = document
        while isinstance(place, dict | list) and place:
            key = draw(st.sampled_from(list(place) if isinstance(place, dict) else list(range(len(place)))))
            if not (isinstance(place[key], dict | list) and place[key]) or draw(st.booleans()):
                break
            place = place[key]
        if not (isinstance(place, dict | list) and place):
            break
        action = draw(st.sampled_from(["replace", "remove", "join"]))
        if action == "replace":
            place[key] = draw(VALUES)
        elif action == "remove":
            del place[key]
        elif isinstance(place, dict):
            place[draw(st.sampled_from(["seed", "self", "extra", "../x"]) | st.text(max_size=8))] = draw(VALUES)
        else:
            place.append(draw(VALUES))
    return document


@st.composite
def cut(draw: st.DrawFn, text: bytes) -> bytes:
    """Bytes with a piece cut out and another put in."""
    start = draw(st.integers(0, len(text)))
    return text[:start] + draw(st.binary(max_size=12)) + text[start + draw(st.integers(0, 40)) :]


def toml_of(document: Any) -> str:
    """A document as TOML: inline tables take what JSON says, but for null and its names of numbers."""
    if isinstance(document, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {toml_of(value)}" for key, value in document.items()) + "}"
    if isinstance(document, list):
        return "[" + ", ".join(map(toml_of, document)) + "]"
    if isinstance(document, float):
        return repr(document)
    return '"null"' if document is None else json.dumps(document)


def _tables(document: Any) -> bytes:
    if not isinstance(document, dict):
        return b"x = " + toml_of(document).encode(errors="replace")
    return "".join(f"{json.dumps(str(name))} = {toml_of(table)}\n" for name, table in document.items()).encode()


def network() -> nn.Module:
    """A small dense model, into which plans are loaded."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.Flatten(), nn.Linear(128, 4)
    ).eval()


class Readers:
    """Each reader with what it reads in a folder of its own; nothing but named errors may come out of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.model = folder, network()
        self.saved, self.records = folder / "model", folder / "records"
        lrb.compress(self.model, "tucker", ranks={"0": 2, "2": 2}, input_size=SIZE).save(self.saved)
        self.plan = (self.saved / PLAN).read_bytes()
        self.weights = (self.saved / WEIGHTS).read_bytes()
        of, self.good = trial("tucker", 4), trial_record(trial("jaderberg", 4))
        self.lines = [trial_record(of).model_dump_json(), measurement_record(of).model_dump_json()]
        self.before = self.outside()
        self.inputs: dict[str, tuple[st.SearchStrategy[bytes], Callable[[bytes], None]]] = {
            "sweep": (damaged(tomllib.loads(SWEEP)).map(_tables) | cut(SWEEP.encode()), self.read_sweep),
            "plan": (damaged(json.loads(self.plan)).map(_json) | cut(self.plan), self.read_plan),
            "weights": (cut(self.weights), self.read_weights),
            "record": (
                st.one_of(*(damaged(json.loads(line)).map(_json) | cut(line.encode()) for line in self.lines)),
                self.read_record,
            ),
        }

    @property
    def good_documents(self) -> dict[str, list[bytes]]:
        """For each reader, what it reads well."""
        lines = [line.encode() for line in self.lines]
        return {"sweep": [SWEEP.encode()], "plan": [self.plan], "weights": [self.weights], "record": lines}

    def outside(self) -> set[Path]:
        """Everything beside the folders that the readers use."""
        return {path for path in self.folder.rglob("*") if self.records not in (path, *path.parents)}

    def read_sweep(self, data: bytes) -> None:
        """A sweep file, and its trials and measurements with their keys."""
        path = self.folder / "sweep.toml"
        path.write_bytes(data)
        with suppress(lrb.LowRankBenchError):
            trials, measurements = plan(str(path), "machine", cores=2)
            assert all(len(each.key) == 16 for each in (*trials, *measurements))
        path.unlink()

    def read_plan(self, data: bytes) -> None:
        """A plan beside good weights."""
        (self.saved / PLAN).write_bytes(data)
        self._load()
        (self.saved / PLAN).write_bytes(self.plan)

    def read_weights(self, data: bytes) -> None:
        """Weights beside a good plan."""
        (self.saved / WEIGHTS).write_bytes(data)
        self._load()
        (self.saved / WEIGHTS).write_bytes(self.weights)

    def read_record(self, data: bytes) -> None:
        """A line between two good ones, in a results folder to which a run then appends."""
        self.records.mkdir(exist_ok=True)
        good = self.lines[0].encode() + b"\n"
        (self.records / FILE_NAME).write_bytes(good + data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            store = Store(self.records)
            store.append(self.good)
            read = store.records()
            assert self.good.key == read[-1].key, "a good line is read, whatever the bad one says"
            if len(read) > 2:  # else the table sees nothing of it
                with suppress(lrb.LowRankBenchError):
                    lrb.load_records(self.records)

    def _load(self) -> None:
        with suppress(lrb.LowRankBenchError):
            lrb.load(self.saved, self.model)
        assert self.outside() == self.before, "nothing is written, and nowhere else"


def _json(document: Any) -> bytes:
    return json.dumps(document).encode()
