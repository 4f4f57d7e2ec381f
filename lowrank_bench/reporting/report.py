"""From a folder of records to what people read: leaderboard, page, figures and the README's board."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd

from lowrank_bench.errors import InvalidInput
from lowrank_bench.reading import latest, read_lines
from lowrank_bench.reporting.board import THRESHOLDS, Board, Row, allowed, make_boards, rows_of
from lowrank_bench.reporting.cells import (
    loss_text,
    method_text,
    points_text,
    practical_text,
    seeds_of,
    setting_text,
    speedup_text,
    verdict_text,
    workload_text,
)
from lowrank_bench.reporting.choice import free_choice, workloads
from lowrank_bench.reporting.evidence import Evidence
from lowrank_bench.reporting.figures import encode
from lowrank_bench.reporting.files import plain_name, replace_file, replace_files
from lowrank_bench.reporting.findings import answers, findings_markdown
from lowrank_bench.reporting.gallery import pictures_of
from lowrank_bench.reporting.latex import to_latex
from lowrank_bench.reporting.leaderboard import board_markdown, overall_markdown, to_csv
from lowrank_bench.reporting.markdown import bullets, escape, markdown_table
from lowrank_bench.reporting.overall import make_overall
from lowrank_bench.reporting.page import Picture, render_page
from lowrank_bench.reporting.paper import load_paper, paper_names
from lowrank_bench.reporting.profile_links import profiles_markdown, profiles_of
from lowrank_bench.reporting.records_frame import load_records
from lowrank_bench.reporting.reproduction import reproduced, reproduction_markdown
from lowrank_bench.reporting.tables import facts, networks_grid
from lowrank_bench.trial import CONTROL

_SUMMARY = [
    "Method", "Target", "Practical [95 %]", "In", "Speedup there [95 %]", "Verdict there", "Loss, points [95 %]",
    "Seeds", "MACs ratio", "Realised",
]  # fmt: skip
_SAME_MACS = ("macs/4", "macs/4 (convs)")
BEGIN, END = "<!-- board:begin -->", "<!-- board:end -->"


def write_report(folder: Path | str, max_loss: float = 1.0, *, latex: bool = False) -> list[Path]:
    """Write leaderboard.md, leaderboard.csv, findings.md, index.html and figures/*.png and *.svg into a folder of
    records, leaderboard.tex where it is asked for, and reproduction.md where a paper's claim was measured; returns
    their paths.

    The same records and profiles give the same bytes; of profiles those are linked that lie in its figures and whose
    trials are among the records. Each file replaces its predecessor at once; figures of boards that are no
    longer there are removed. Raises InvalidRecord where the folder holds no readable record or cannot be written,
    InvalidInput for a ``max_loss`` that is not finite.
    """
    folder = Path(folder)
    lines = read_lines(folder)
    counting = latest(line.record for line in lines if line.record)
    evidence = Evidence(counting.values())
    frame = evidence.frame
    boards = make_boards(frame, max_loss)
    overall = make_overall(boards)
    notes = _notes(frame, counting)
    files: dict[str, bytes] = {}
    sections = ["# Leaderboard", *map(overall_markdown, overall)]
    pages: list[tuple[Board, list[Picture]]] = []
    for board in boards:
        sections.append(board_markdown(board))
        pages.append((board, []))
        for drawn in pictures_of(board, evidence.trials):
            name = f"figures/{_slug(board)}-{drawn.kind}"
            images = {f"{name}.{form}": encode(drawn.figure, form) for form in ("png", "svg")}
            sections.append(f"![{escape(f'{drawn.title}: {board.name}')}]({name}.svg)")
            pages[-1][1].append(Picture(drawn.title, images[f"{name}.svg"], drawn.pointed))
            files |= images
    profiles = profiles_of(folder, evidence.trials)
    if profiles:
        sections.append(profiles_markdown(profiles))
    files["leaderboard.md"] = ("\n\n".join([*sections, *notes]) + "\n").encode()
    files["leaderboard.csv"] = to_csv(boards).encode()
    files["index.html"] = render_page(pages, overall, lines, folder, notes, profiles)
    papers = [reproduced(load_paper(name), evidence) for name in paper_names()]
    files["findings.md"] = findings_markdown(boards, papers).encode()
    if any(done.measured for done in papers):
        files["reproduction.md"] = reproduction_markdown(papers).encode()
    if latex:
        files["leaderboard.tex"] = to_latex(boards, overall).encode()
    return replace_files(folder, files)


def summary_board(frame: pd.DataFrame) -> str:
    """The README's board, in markdown: what 4x fewer MACs become, least and most; who wins at which loss and how sure
    that is, whatever the recipe; then of each method at each budget the variant of the largest practical speedup at the
    headline's threads and batch, and the default one beside it; what loses more than 2 points has a table of its own. A
    network's board is the one of the machine and the recipe of most models; its others are named. The networks of which
    the time alone is known share one table for each machine. What was timed in fewer bits alone is left to the whole
    board.
    """
    boards = [board for board in make_boards(frame) if not (board.rows.empty or _chosen(board).empty)]
    networks: dict[tuple[str, str], list[Board]] = {}
    for board in boards:
        if board.scored:
            networks.setdefault((board.task, board.model), []).append(board)
    timed_alone = [board for board in boards if not board.scored]
    return "\n\n".join([*_spans(boards), *map(_summary, networks.values()), *_networks(timed_alone)])


def update_readme(readme: Path | str, folder: Path | str) -> None:
    """Replace what stands between the two board markers of a README by ``summary_board`` of a folder's records.

    Raises InvalidInput where the README lacks the markers or cannot be read, InvalidRecord as ``load_records`` does.
    """
    readme = Path(readme)
    try:
        text = readme.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{readme} cannot be read as text ({error}): name the README") from None
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise InvalidInput(f"{readme} lacks the lines {BEGIN} and {END}, in this order: the board goes between them")
    board = summary_board(load_records(folder))
    replace_file(readme, f"{head}{BEGIN}\n{board}\n{END}{tail}".encode())


def _notes(frame: pd.DataFrame, counting: Collection[str]) -> list[str]:
    """What was left out of the boards, and why."""
    notes = []
    if orphans := int((frame["task"] == "").sum()):
        notes.append(f"Measurements left out, as their trials are not among the records: {orphans}.")
    if outdated := len(set(counting) - {*frame["key"], *frame["trial"]}):
        notes.append(f"Records left out, as later ones of other versions or weights took their place: {outdated}.")
    return notes


def _slug(board: Board) -> str:
    """A file name that is the same whatever other boards there are; no two boards share it."""
    names = (board.task, board.model, board.recipe, board.machine)
    digest = hashlib.sha256("\0".join(names).encode()).hexdigest()[:6]
    return "-".join([*map(plain_name, names), digest])


def _spans(boards: Sequence[Board]) -> list[str]:
    """On each machine the least and the largest speedup at one ratio of MACs, in float32, in runtimes that count for a
    headline.
    """
    sentences = []
    for machine in sorted({board.machine for board in boards}):
        rows = [row for board in boards if board.machine == machine for row in rows_of(board.rows)]
        rows = [row for row in rows if row.target in _SAME_MACS and row.headline and row.arithmetic == "float32"]
        if rows:
            ends = (pick(rows, key=lambda row: row.speedup) for pick in (min, max))
            least, most = (
                f"{speedup_text(row)} ({method_text(row)} {row.target} on {row.model}, "
                f"{setting_text(row.runtime, row.threads, row.batch)}, verdict: {verdict_text(row)})"
                for row in ends
            )
            count = len({(row.task, row.model) for row in rows})
            networks = f"{count} network{'s' * (count > 1)}"
            sentences.append(
                escape(f"On {machine}, {networks} with 4x fewer MACs: from {least} to {most} times as fast.")
            )
    return sentences


def _summary(boards: Sequence[Board]) -> str:
    """A network's board of most models, and of which recipes and machines there are others."""
    board = max(boards, key=lambda board: len(_chosen(board)))
    recipes = [other for other in boards if other.machine == board.machine]
    rows = _chosen(board)
    shown = rows[~rows.duplicated(["method", "target"]) | (rows["options"] == "")]
    control = shown["method"] == CONTROL
    title = f"**{escape(board.name)}**, {workload_text(*workloads(board)[0])}, each model in its fastest runtime"
    kept = ~control & (shown["top1_drop"] <= allowed(THRESHOLDS[-1]))
    tables = [_summary_table(pd.concat([shown[kept], shown[control]]))]
    if (~kept & ~control).any():
        tables += [f"Losing more than {points_text(THRESHOLDS[-1])}:", _summary_table(shown[~kept & ~control])]
    told = [*facts(board), _floor(shown["noise_floor"])]
    others = {
        "recipes": dict.fromkeys(other.recipe for other in recipes if other is not board),
        "machines": dict.fromkeys(other.machine for other in boards if other.machine != board.machine),
    }
    told += [(f"Other {kind}, on the whole board", ", ".join(names)) for kind, names in others.items() if names]
    return _stacked(title, bullets(answers(recipes)), "\n\n".join(tables), told)


def _chosen(board: Board) -> pd.DataFrame:
    """Each model in its fastest runtime, at the headline's threads and batch."""
    return free_choice(board, *workloads(board)[0])


def _networks(boards: Sequence[Board]) -> list[str]:
    """A table of the networks on each machine, by recipe and workload."""
    alike: dict[tuple[str, str, tuple[int, int]], list[Board]] = {}
    for board in boards:
        alike.setdefault((board.machine, board.recipe, workloads(board)[0]), []).append(board)
    tables = []
    for (machine, recipe, workload), some in alike.items():
        grid = networks_grid(some, *workload)
        if not grid.cells:
            continue
        title = f"**{escape(f'Networks by time alone, recipe {recipe}, {machine}')}**"
        said = f"{workload_text(*workload)}, practical speedup of each model in its fastest runtime"
        floors = pd.concat([free_choice(board, *workload)["noise_floor"] for board in some])
        told = [*facts(*some), _floor(floors)]
        tables.append(_stacked(f"{title}, {said}", "", markdown_table(*grid), told))
    return tables


def _floor(floors: pd.Series[float]) -> tuple[str, str]:
    return ("Noise floor, median of these rows", f"{floors.median():.1%}")


def _stacked(title: str, answered: str, table: str, told: Sequence[tuple[str, str]]) -> str:
    below = escape("; ".join(f"{name}: {text}" for name, text in told))
    return "\n\n".join(filter(None, (title, answered, table, below)))


def _summary_table(rows: pd.DataFrame) -> str:
    return markdown_table(_SUMMARY, [_summary_cells(row) for row in rows_of(rows)])


def _summary_cells(row: Row) -> list[str]:
    return [
        method_text(row) + (" (A/A control)" if row.method == CONTROL else ""),
        row.target,
        practical_text(row),
        row.runtime,
        speedup_text(row),
        verdict_text(row),
        loss_text(row),
        str(seeds_of(row)),
        f"{row.macs_ratio:.2f}",
        f"{row.realised:.0%}",
    ]
