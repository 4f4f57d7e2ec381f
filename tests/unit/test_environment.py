from __future__ import annotations

import getpass
import os
import platform
import re
import socket
from pathlib import Path

import torch

from lowrank_bench.measurement import cores, environment
from lowrank_bench.measurement.environment import Environment, checks, fingerprint
from lowrank_bench.measurement.peak import peak


def check(name: str) -> environment.Check:
    return next(c for c in checks() if c.name == name)


def test_fingerprint_survives_a_record_and_names_versions():
    found = fingerprint()
    assert Environment.model_validate_json(found.model_dump_json()) == found
    assert found.packages["torch"] == torch.__version__.partition("+")[0]
    assert found.python == platform.python_version()
    assert found.cores >= 1
    assert found.memory_gb > 0


def test_fingerprint_tells_nothing_about_person_host_or_folders(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    text = fingerprint().model_dump_json()
    private = {socket.gethostname(), getpass.getuser(), str(Path.home()), str(Path.cwd())}
    assert not any(re.search(rf"\b{re.escape(word)}\b", text) for word in private)
    assert os.sep not in text


def test_machine_has_a_readable_name_that_stays(monkeypatch):
    name = fingerprint().machine
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)?-[0-9.]+c-[0-9a-f]{6}", name)
    monkeypatch.setattr(platform, "release", lambda: "99.1")  # a new kernel
    monkeypatch.setattr(environment, "visible_cores", lambda: [0])  # pinned
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert fingerprint().machine == name


def test_a_gpu_on_which_networks_are_trained_is_named_and_the_machine_keeps_its_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    without = fingerprint()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    found = fingerprint()
    assert (without.gpu, found.gpu) == (None, "NVIDIA H200")
    assert found.machine == without.machine
    older = found.model_dump(exclude={"gpu"})
    assert Environment.model_validate(older).gpu is None


def test_another_processor_limit_or_number_of_cores_is_another_machine(monkeypatch, tmp_path):
    names = {fingerprint().machine}
    monkeypatch.setattr(os, "cpu_count", lambda: 1000)
    names.add(fingerprint().machine)
    monkeypatch.setattr(environment, "cgroup_cores", lambda: 2.5)
    names.add(fingerprint().machine)
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Gold 6230 CPU @ 2.10GHz\n")
    monkeypatch.setattr(environment, "PROC", tmp_path)
    names.add(fingerprint().machine)
    assert len(names) == 4
    assert fingerprint().machine.startswith("intel-xeon-2.5c-")


def test_every_check_has_a_value_and_a_remedy():
    found = checks()
    assert len({c.name for c in found}) == len(found) == 9
    assert all(c.value and c.remedy for c in found)


def test_checks_find_what_spoils_timings(monkeypatch, tmp_path):
    governor = tmp_path / "devices/system/cpu/cpu0/cpufreq/scaling_governor"
    siblings = [tmp_path / f"devices/system/cpu/cpu{core}/topology/thread_siblings_list" for core in (0, 1)]
    for path, text in ((governor, "powersave\n"), (siblings[0], "0-1\n"), (siblings[1], "0-1\n")):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    monkeypatch.setattr(environment, "SYS", tmp_path)
    monkeypatch.setattr(cores, "SYS", tmp_path)
    monkeypatch.setattr(environment, "visible_cores", lambda: [0, 1])
    monkeypatch.setattr(environment, "cgroup_cores", lambda: 1.5)
    monkeypatch.setattr(environment, "_steal", lambda: 0.2)
    monkeypatch.setattr(environment, "_onednn", lambda: False)
    monkeypatch.setattr(os, "getloadavg", lambda: (1.7, 1, 1))
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert {c.name: c.value for c in checks() if not c.ok} == {
        "frequency governor": "powersave",
        "load": "1.70 running on 2 cores",
        "time stolen by the host": "20.0% since the start of the machine",
        "simultaneous multithreading": "2 hardware threads on 1 physical cores",
        "cores against the cgroup": "2 cores, of which the cgroup grants 1.5",
        "vector instructions": "DEFAULT",
        "oneDNN": "off",
        "thread variables": "OMP_NUM_THREADS=4096",
    }


def test_what_a_machine_does_not_show_is_not_held_against_it(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "SYS", tmp_path)
    monkeypatch.delattr(os, "getloadavg")
    assert all(check(name).ok and check(name).value == "not visible" for name in ("frequency governor", "load"))
    assert fingerprint().load is None


def test_peak_is_measured_and_a_matrix_product_cannot_beat_it_by_far(monkeypatch):
    monkeypatch.setattr("lowrank_bench.measurement.peak.NS", 200_000_000)
    found = peak(1)
    assert 1 < found.gflops < 1e4
    assert 0.1 < found.gbytes < 1e4
