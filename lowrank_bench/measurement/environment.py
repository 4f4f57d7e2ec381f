"""What a timing depends on besides the models: the machine, its state and the versions; and what to mend about it."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import psutil
import torch
from pydantic import BaseModel, ConfigDict, Field

from lowrank_bench.measurement.cores import (
    PROC,
    SYS,
    cgroup_cores,
    read,
    sibling_threads,
    usable_cores,
    visible_cores,
)

PACKAGES = ("torch", "torchvision", "timm", "tensorly", "numpy", "onnxruntime", "openvino")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
# They change how threads wait and where they run, and so the times.
OTHER_VARIABLES = ("OMP_PROC_BIND", "OMP_WAIT_POLICY", "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "KMP_BLOCKTIME")
# Share of the cores that others may keep busy; share of its time that a virtual machine may wait for its host.
QUIET_LOAD = 0.25
QUIET_STEAL = 0.01


class Environment(BaseModel):
    """Machine, its state at the start, and versions; nothing that names a person, a host or a folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    machine: str = Field(description="short name that stays the same while processor, cores, limit and system do")
    cpu: str
    cores: int = Field(description="cores on which the process may run")
    cgroup_cores: float | None = Field(description="cores that the cgroup grants; None: no limit")
    memory_gb: float
    os: str
    python: str
    packages: dict[str, str | None] = Field(description="versions; None: not installed")
    cpu_capability: str = Field(description="vector instructions that torch uses")
    onednn: bool
    torch_threads: int
    variables: dict[str, str] = Field(description="environment variables about threads that are set")
    governor: str | None = Field(description="of the clock frequency; None: not visible")
    load: float | None = Field(description="running processes, mean of the last minute; None: not visible")
    gpu: str | None = Field(
        default=None, description="what networks are trained and judged on; None: they are on the processor"
    )


@dataclass(frozen=True)
class Check:
    """One thing that timings depend on: is it as it should be, what it is, and what to do if it is not."""

    name: str
    ok: bool
    value: str
    remedy: str


def fingerprint() -> Environment:
    """Describe this machine and this installation, as every record does."""
    return Environment(
        machine=_machine(),
        cpu=_cpu(),
        cores=len(visible_cores()),
        cgroup_cores=cgroup_cores(),
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        os=" ".join([platform.system(), *re.findall(r"^[\d.]+\d", platform.release()), platform.machine()]),
        python=platform.python_version(),
        packages={name: version_of(name) for name in PACKAGES},
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        onednn=_onednn(),
        torch_threads=torch.get_num_threads(),
        variables={name: os.environ[name] for name in THREAD_VARIABLES + OTHER_VARIABLES if name in os.environ},
        governor=_governor(),
        load=load_average(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    )


def checks() -> list[Check]:
    """What would make timings on this machine untrustworthy, each with its remedy."""
    cores, limit = visible_cores(), cgroup_cores()
    governor, load, steal = _governor(), load_average(), _steal()
    shared = sorted(core for core in cores if len(set(sibling_threads(core)) & set(cores)) > 1)
    physical = len({tuple(sibling_threads(core)) for core in cores})
    capability = torch.backends.cpu.get_cpu_capability()
    excess = {
        name: value
        for name in THREAD_VARIABLES
        if (value := os.environ.get(name, "")).isdigit() and int(value) > usable_cores()
    }
    return [
        Check(
            "frequency governor",
            governor in (None, "performance"),
            governor or "not visible",
            "let the clock stand still: cpupower frequency-set -g performance",
        ),
        Check(
            "load",
            load is None or load <= QUIET_LOAD * len(cores),
            "not visible" if load is None else f"{load:.2f} running on {len(cores)} cores",
            "end what else runs, or wait for it",
        ),
        Check(
            "time stolen by the host",
            steal is None or steal <= QUIET_STEAL,
            "not visible" if steal is None else f"{steal:.1%} since the start of the machine",
            "ask for dedicated cores: other guests of the host slow this one",
        ),
        Check(
            "simultaneous multithreading",
            not shared,
            f"{len(cores)} hardware threads on {physical} physical cores",
            f"time with at most {physical} threads, and keep the sibling threads idle",
        ),
        Check(
            "cores against the cgroup",
            limit is None or limit >= len(cores),
            f"{len(cores)} cores" + ("" if limit is None else f", of which the cgroup grants {limit:g}"),
            f"time with at most {usable_cores()} threads: a process above its quota is stopped until the next period",
        ),
        Check(
            "torch build",
            not torch.version.debug,
            torch.__version__,
            "install a release build: this one was made for debugging",
        ),
        Check(
            "vector instructions",
            capability not in ("DEFAULT", "NO AVX") or platform.machine().lower() not in ("x86_64", "amd64"),
            capability,
            "unset ATEN_CPU_CAPABILITY: without AVX2 the times are not those that others will see",
        ),
        Check("oneDNN", _onednn(), "on" if _onednn() else "off", "leave torch.backends.mkldnn enabled"),
        Check(
            "thread variables",
            not excess,
            ", ".join(f"{name}={value}" for name, value in excess.items()) or "none above the cores",
            f"unset them or keep them at {usable_cores()} or below",
        ),
    ]


def _machine() -> str:
    """Such as ``amd-epyc-2c-1a2b3c``; from what the machine is, so pinning or a new kernel does not rename it."""
    total, limit = os.cpu_count() or 1, cgroup_cores()
    cores = total if limit is None else limit
    words = re.findall(r"[a-z0-9]+", re.sub(r"\((r|tm)\)", " ", _cpu().lower()))
    identity = f"{_cpu()}|{total}|{limit}|{platform.system()}|{platform.machine()}"
    return f"{'-'.join(words[:2])}-{cores:g}c-{hashlib.sha256(identity.encode()).hexdigest()[:6]}"


def _cpu() -> str:
    """Name of the processor, with family and model where the name alone, as a virtual machine shows it, says little."""
    facts = dict(re.findall(r"^([^:\n]+?)\s*:[ \t]*(.*)$", read(PROC / "cpuinfo").partition("\n\n")[0], re.MULTILINE))
    name = facts.get("model name") or platform.processor() or platform.machine() or "unknown"
    return f"{name} (family {facts['cpu family']}, model {facts['model']})" if "cpu family" in facts else name


def version_of(package: str) -> str | None:
    """Of an installed package; None where it is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _onednn() -> bool:
    return torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)


def _governor() -> str | None:
    return read(SYS / "devices/system/cpu/cpu0/cpufreq/scaling_governor") or None


def load_average() -> float | None:
    """Running processes, mean of the last minute; None where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _steal() -> float | None:
    times = psutil.cpu_times()
    return times.steal / sum(times) if hasattr(times, "steal") else None
