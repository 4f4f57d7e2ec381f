"""Models timed in one process by real children: what each finds, and that none takes the others down with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lowrank_bench.measurement.environment import fingerprint
from lowrank_bench.record import MeasurementRecord, Status
from lowrank_bench.running.engine import Engine
from lowrank_bench.trial import Measurement, Trial

# It dies where its layer is Tucker's three and it is given three images, which it is when it is timed.
MODEL = """
import os, signal
from torch import nn
class Deadly(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3)
    def forward(self, images):
        if len(list(self.conv.children())) == 3 and len(images) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.conv(images).mean((2, 3))
build = Deadly
"""


def trial(method: str) -> Trial:
    ranks = {"tucker": (4, 2), "channel_svd": (4,), "jaderberg": (4,)}[method]
    return Trial(task="speed:3x16x16", model="deadly:build", method=method, ranks={"conv": ranks}, recipe="none")


def measurement(of: Trial, batch: int) -> Measurement:
    setting = {"runtime": "eager", "threads": 1, "precision": 0.5, "max_seconds": 0.3}
    return Measurement(trial=of.key, machine=fingerprint().machine, batch=batch, **setting)


def test_they_share_a_process_and_where_one_of_them_kills_it_the_others_are_timed_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOWRANK_BENCH_LOCKS", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "deadly.py").write_text(MODEL)
    good, other, deadly = (trial(name) for name in ("channel_svd", "jaderberg", "tucker"))
    together = [measurement(good, 2), measurement(other, 2)]
    killed = [measurement(good, 3), measurement(deadly, 3)]
    Engine(tmp_path / "results", fingerprint()).run([good, other, deadly], [*together, *killed])
    found = {r.key: r for r in Engine(tmp_path / "results", fingerprint()).store.records()}
    ends = []
    for asked in (*together, *killed):
        record = found[asked.key]
        assert isinstance(record, MeasurementRecord)
        ends.append((record.status, record.timing and [process.models for process in record.timing.processes]))
    assert ends == [(Status.OK, [2]), (Status.OK, [2]), (Status.OK, [1]), (Status.CRASHED, None)]
    floors = [found[asked.key].timing.processes[0].noise_floor for asked in together]
    assert floors[0] == floors[1]  # one control for both
    assert "signal 9" in found[killed[1].key].reason
