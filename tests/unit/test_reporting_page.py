"""The page: one file that loads nothing, shows every row and every record, and takes text for text."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from synthetic_records import failed_trial, measurement_record, sweep, trial, trial_record, write

from lowrank_bench.record import Status
from lowrank_bench.reporting.page_section import inline_svg
from lowrank_bench.reporting.report import write_report

NASTY = "<script>name=7</script>\"'&</td>"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """What a page holds: elements with their attributes, and the text of every row of every table."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.rows = [], [], {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.elements.append((tag, found))
        if tag in VOID:
            return
        self.open.append((tag, found))
        if tag == "tr" and "id" in found:
            self.rows[found["id"]] = []
        if tag in ("td", "th") and self.row:
            self.rows[self.row].append("")

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1][0] == tag, (tag, self.open[-3:])
        self.open.pop()

    def handle_data(self, data):
        if self.row and any(tag in ("td", "th") for tag, _ in self.open):
            self.rows[self.row][-1] += data

    @property
    def row(self):
        return next((found["id"] for tag, found in self.open if tag == "tr" and "id" in found), None)

    def all(self, tag):
        return [found for name, found in self.elements if name == tag]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A report over three seeds, with a failure whose reason and options are full of markup."""
    out = tmp_path_factory.mktemp("report")
    nasty = trial("tucker", 4, options={"init": NASTY})
    records = [*sweep(seeds=(0, 1)), trial_record(nasty, 0.3), measurement_record(nasty, 2.2)]
    records.append(failed_trial(trial("denton", 4), Status.FAILED, NASTY))
    write(out, records)
    write_report(out)
    return out


@pytest.fixture(scope="module")
def text(folder):
    return (folder / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_it_is_well_formed_and_every_id_is_there_once(page):
    assert page.open == []
    ids = [found["id"] for _, found in page.elements if "id" in found]
    assert len(ids) == len(set(ids))


def test_it_loads_nothing(page, text):
    for _, found in page.elements:
        for name in ("src", "href", "xlink:href", "data", "action"):
            target = found.get(name, "#")
            outside = target.startswith(("https://datatables.net", "records.jsonl"))  # which only a click follows
            assert target.startswith(("#", "data:")) or outside, (name, target)
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style and "@import" not in style
    (policy,) = [found["content"] for found in page.all("meta") if "http-equiv" in found]
    assert policy.startswith("default-src 'none'") and "unsafe-inline'; script-src 'sha256-" in policy


def test_every_link_within_the_page_leads_somewhere(page):
    ids = {found["id"] for _, found in page.elements if "id" in found}
    links = [found["href"][1:] for found in page.all("a") if found["href"].startswith("#")]
    assert set(links) <= ids
    assert [link for link in links if link.startswith("record-")]


def test_every_part_of_the_page_is_in_its_contents(page):
    links = {found["href"][1:] for found in page.all("a") if found["href"].startswith("#")}
    parts = {found["id"] for found in page.all("h2")}
    assert len(parts) >= 2 and parts <= links


def test_every_row_has_its_place_and_links_to_its_records_and_these_name_their_line(page, folder):
    rows = {name: cells for name, cells in page.rows.items() if name.startswith("row-")}
    assert len(rows) == 15  # seven methods and budgets with the control in two runtimes, and the nasty one
    assert all(len(cells) == len(next(iter(rows.values()))) and cells[-1] for cells in rows.values())
    lines = (folder / "records.jsonl").read_text(encoding="utf-8").splitlines()
    records = {name: cells for name, cells in page.rows.items() if name.startswith("record-")}
    assert len(records) == len(lines)
    for name, cells in records.items():
        number = int(re.fullmatch(r"records\.jsonl line (\d+)", cells[-1])[1])
        assert f'"key":"{name.removeprefix("record-")}"' in lines[number - 1]


def test_the_list_has_the_record_that_counts_and_a_row_links_to_the_timing_behind_it(tmp_path):
    of = trial("tucker", 4)
    hasty, thorough = (measurement_record(of, speedup, processes=n) for speedup, n in ((3.0, 1), (2.0, 5)))
    control = trial("identity")
    good = [trial_record(control), measurement_record(control), trial_record(of), thorough, hasty]
    write(tmp_path, [*good, failed_trial(of, Status.TIMEOUT, "not done after 9 s")])
    write_report(tmp_path)
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    cells = page.rows[f"record-{of.key}"]
    assert "ok" in cells and "timeout" not in cells and cells[-1] == "records.jsonl line 3"
    (row,) = [cells for cells in page.rows.values() if "2.00 [1.98, 2.02]" in cells]
    assert row[-1] == thorough.key[:6]


def test_a_card_says_as_the_findings_do_how_sure_its_winner_is(text, folder):
    cards = dict(re.findall(r"<li><span>loss of at most (.+?)</span>.*<span>(.+?)</span></li>", text))
    rows = re.findall(r"^\| losing at most (.+?) \|.*\| (.+) \|$", (folder / "findings.md").read_text(), re.M)
    said = dict(reversed(rows))  # the headline's threads and batch stand first
    assert said
    assert {loss: html.unescape(sure) for loss, sure in cards.items() if loss in said} == said


def test_every_marker_of_a_figure_names_a_row(page):
    pointed = {found["data-row"] for _, found in page.elements if "data-row" in found}
    assert pointed == {name for name in page.rows if name.startswith("row-")}


def test_text_of_records_is_text(page, text):
    assert NASTY not in text
    assert sum(NASTY in cell for cells in page.rows.values() for cell in cells) >= 2
    assert len(page.all("script")) == 2
    assert not page.all("img")


def test_tables_have_headings_labels_and_a_way_in_by_keyboard(page):
    assert {found.get("scope") for found in page.all("th")} == {"col", "row"}
    assert all(found.get("aria-label") for found in page.all("table"))
    assert all(found["role"] == "img" and found["aria-label"] for found in page.all("svg"))
    labelled = {found["for"] for found in page.all("label")}
    assert {found["id"] for found in page.all("select")} <= labelled
    assert page.all("html") == [{"lang": "en"}]
    assert any(found.get("name") == "viewport" for found in page.all("meta"))


def test_a_figure_keeps_its_own_ids_and_says_what_it_shows():
    svg = b"""<?xml version="1.0"?><!DOCTYPE svg>
    <svg width="7pt" height="5pt" viewBox="0 0 7 5"><!-- a --><defs><path id="m1"/></defs>
    <g id="row-00ff"><use xlink:href="#m1" clip-path="url(#m1)"/></g></svg>"""
    shown = inline_svg(svg, "b0f1", 'a "title"')
    assert shown.startswith('<svg role="img" aria-label="a &#34;title&#34;" viewBox="0 0 7 5">')
    assert 'id="b0f1-m1"' in shown and 'href="#b0f1-m1"' in shown and "url(#b0f1-m1)" in shown
    assert 'data-row="row-00ff"' in shown


PROBE = """
<script>
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const table = document.getElementById("rows-0");
const shown = () => [...table.tBodies[0].rows].map((row) => row.cells[1].textContent + " " + row.cells[2].textContent);
const column = (name) => [...table.tHead.rows[0].cells].find((cell) => cell.textContent.trim().startsWith(name));
const out = {};
(async () => {
  out.first = shown();
  const loss = column("Loss");
  (loss.querySelector(".dt-column-order") ?? loss).click();
  await wait(50);
  out.sorted = shown();
  out.aria = loss.getAttribute("aria-sort");
  const menu = document.querySelector('select[data-table="rows-0"][data-column="setting"]');
  menu.value = "";
  menu.dispatchEvent(new Event("change"));
  out.all = shown().length;
  const search = document.querySelector("#rows-0").closest(".dt-container").querySelector("input");
  search.value = "jaderberg";
  search.dispatchEvent(new Event("input"));
  await wait(600);
  out.searched = shown();
  const marker = [...document.querySelectorAll("[data-row]")].at(-1);
  marker.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
  out.tip = document.getElementById("tip").hidden ? "" : document.getElementById("tip").textContent;
  marker.dispatchEvent(new MouseEvent("click", { bubbles: true }));
  await wait(50);
  out.target = document.getElementById(marker.dataset.row)?.isConnected ?? false;
  out.name = window.name; // which a script among the records would have set
  out.requests = performance.getEntriesByType("resource").map((entry) => entry.name);
  const result = document.createElement("pre");
  result.id = "probe";
  result.textContent = JSON.stringify(out);
  document.body.append(result);
})();
</script>
"""


def browse(path):
    """The page as a browser without network leaves it, after two seconds of its own time."""
    if BROWSER is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium, to see the page sort and filter")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom"]
    options += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={path.parent / 'profile'}"]
    done = subprocess.run([BROWSER, *options, path.as_uri()], capture_output=True, text=True, timeout=90)
    return done.stdout


def test_in_a_browser_it_runs_under_its_own_policy_and_begins_with_the_headline_setting(folder):
    shown = browse(folder / "index.html")
    assert "dt-container" in shown, "the policy kept the page's own scripts from running"
    table = shown.partition('<table id="rows-0"')[2].partition("</table>")[0]
    assert "onnxruntime 1t b64" in table
    assert "eager-nhwc 1t b64" not in table


def test_in_a_browser_it_sorts_filters_points_at_rows_and_makes_no_request(text, tmp_path):
    path = tmp_path / "probe.html"
    free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)  # requests would be allowed here
    path.write_text(free.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    found = re.search(r'<pre id="probe">(.*?)</pre>', browse(path), re.DOTALL)
    assert found, "the page's scripts ended early"
    out = json.loads(html.unescape(found[1]))
    assert out["first"][0].startswith("jaderberg macs/8")
    assert len(out["first"]) == 8
    assert out["aria"] == "ascending"
    assert out["sorted"] != out["first"] and sorted(out["sorted"]) == sorted(out["first"])
    assert out["sorted"][0].startswith("identity") and out["sorted"][-1].startswith("channel_svd macs/8")
    assert out["all"] == 15
    assert len(out["searched"]) == 4 and all(row.startswith("jaderberg") for row in out["searched"])
    assert "Speedup" in out["tip"] and "Loss" in out["tip"]
    assert out["target"] is True
    assert out["requests"] == []
    assert out["name"] == ""


def test_where_no_loss_is_known_the_page_does_not_say_that_it_is_too_large(tmp_path):
    of = trial("tucker", 4)
    write(tmp_path, [trial_record(of), measurement_record(of, 3.0)])  # and no dense control
    write_report(tmp_path)
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "no loss is known: no dense control" in text and "nothing that keeps within it" not in text
