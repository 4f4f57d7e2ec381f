"""The page on cp_nls against tensorly, on standard output, from the JSON files that pytest --benchmark-json wrote.

One thread, as published: `OMP_NUM_THREADS=1 pytest tests/bench/test_cp_vs_tensorly.py --benchmark-json=cp.json`, then
`python tests/bench/cp_table.py cp.json > results/published/cp_vs_tensorly.md`.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PAGE = """\
# cp_nls beside tensorly's parafac

The same kernels in float64 on {threads}: tensorly {tensorly} (`parafac`, `init="svd"`, 100
iterations), and `cp_nls` with its defaults but for a limit of time. Errors are relative, ||W - W^|| / ||W||. The first
error of `cp_nls` is that of the shortest of five limits (1/80 to 1/5 of tensorly's seconds) in which it reached
tensorly's, so it is at least so many times faster; the second is what it reaches in tensorly's time, with the energy of
its terms, sum ||term||^2 / ||W||^2: far above 1 where large terms cancel each other, which the option `epc` mends. One
run of each.

- Processor: {cpu}, {cores} cores; load before: {load}
- Python {python}, torch {torch}, tensorly {tensorly}
- Command: `OMP_NUM_THREADS={count} pytest tests/bench/test_cp_vs_tensorly.py --benchmark-json=cp.json`, then
  `python tests/bench/cp_table.py cp.json`

{table}
"""

HEADER = """\
| kernel | tensorly: error | seconds | cp_nls: error | seconds | as fast | error in tensorly's time | term energy |
|---|---|---|---|---|---|---|---|"""


def row(info: dict[str, Any]) -> str:
    """One line for one case."""
    cells = (
        info["case"],
        f"{info['tensorly_error']:.4f}",
        f"{info['tensorly_seconds']:.1f}",
        f"{info['error']:.4f}",
        f"{info['seconds']:.2f}",
        f"≥ {info['tensorly_seconds'] / info['seconds']:.0f}",
        f"{info['error_in_the_same_time']:.4f}",
        f"{info['term_energy']:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def page(names: Iterable[str]) -> str:
    """Markdown, in the order of the files and of the tests in them; the environment is the first one's."""
    runs = [json.loads(Path(name).read_text()) for name in names]
    infos = [benchmark["extra_info"] for run in runs for benchmark in run["benchmarks"]]
    infos = [info for info in infos if "tensorly_error" in info]
    environment = infos[0]["environment"]
    tables = "\n".join([HEADER, *map(row, infos)])
    if foxes := [info for info in infos if "tensorfox" in info]:
        title = f"TensorFox {foxes[0]['tensorfox']} (`cpd` with its defaults) where it was tried:"
        rows = [f"| {fox['case']} | {fox['fox_error']:.4f} | {fox['fox_seconds']:.1f} |" for fox in foxes]
        tables += "\n\n" + "\n".join([title, "", "| kernel | error | seconds |", "|---|---|---|", *rows])
    return PAGE.format(
        threads="one thread" if environment["torch_threads"] == 1 else f"{environment['torch_threads']} threads",
        count=environment["torch_threads"],
        tensorly=infos[0]["tensorly"],
        cpu=environment["cpu"],
        cores=environment["cores"],
        load=environment["load"],
        python=environment["python"],
        torch=environment["packages"]["torch"],
        table=tables,
    )


if __name__ == "__main__":
    print(page(sys.argv[1:]), end="")
