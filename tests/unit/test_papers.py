"""The papers that come with the package: whole, consistent, and short where they are asked to be."""

from __future__ import annotations

import re

import pytest
from synthetic_paper import PAPER

import lowrank_bench as lrb
from lowrank_bench.reporting.claims.paper import Paper, load_paper, parse_paper
from lowrank_bench.shipped import paper_names


@pytest.fixture(scope="module", params=paper_names())
def paper(request: pytest.FixtureRequest) -> Paper:
    return load_paper(request.param)


def test_every_claim_speaks_of_trials_that_its_experiment_makes(paper: Paper) -> None:
    plans = paper.plans()
    for claim in paper.claims:
        for models in filter(None, (claim.models, claim.against)):
            assert models.of(plans[models.experiment].trials), claim.claim


def test_every_experiment_serves_a_claim_and_its_times_can_be_published(paper: Paper) -> None:
    used = {models.experiment for claim in paper.claims for models in (claim.models, claim.against) if models}
    assert used == set(paper.experiments)
    assert {e.measure.processes for e in paper.experiments.values() if e.measure} <= {5}


def test_what_is_asked_is_the_papers_number_or_is_explained(paper: Paper) -> None:
    for claim in paper.claims:
        text = f"{claim.claim} {claim.paper} {claim.differs}".replace("half", "0.5")
        for limit in (limit for check in claim.checks for limit in check.conditions.values()):
            number = re.compile(rf"(?<![\d.]){abs(limit):g}(\.0+)?(?!\.?\d)")
            assert limit in (0, 1) or number.search(text), (claim.claim, limit)  # 0 and 1 are in words: not slower


def test_a_note_is_whole_as_tables_are_split_by_machine(paper: Paper) -> None:
    for claim in paper.claims:
        assert not re.search(r"[Aa]s (above|on CharNet)|next line", claim.differs), claim
        assert not re.match(r"the same|so do", claim.claim), claim


def test_that_a_number_is_from_memory_stands_in_its_field_alone(paper: Paper) -> None:
    assert not any("memory" in claim.where for claim in paper.claims)


def test_the_short_form_of_a_paper_is_a_few_trials_of_one_seed_and_one_process(paper: Paper) -> None:
    plans = paper.plans(quick=True).values()
    trials = {trial.key: trial for plan in plans for trial in plan.trials}
    assert len(trials) <= 10
    assert {trial.recipe for trial in trials.values()} <= {"none", "short"}
    assert {trial.seed for trial in trials.values()} <= {0}
    measures = [plan.sweep.measure for plan in plans if plan.sweep.measure]
    assert all(measure.processes == 1 and measure.max_seconds <= 1.5 for measure in measures)


def test_the_short_form_keeps_what_it_does_not_replace() -> None:
    (plan,) = parse_paper("good", PAPER).plans(quick=True).values()
    assert [(t.method, t.target, t.recipe, t.seed) for t in plan.trials] == [
        ("identity", "", "short", 0),
        ("tucker", "macs/4", "short", 0),
        ("tucker", "macs/8", "short", 0),
    ]
    assert [m.runtime for m in plan.sweep.measurements(plan.trials, "m", 1)] == ["eager-nhwc"] * 3
    without = PAPER.replace('[experiments.net.quick]\nmethods = ["tucker"]\n', "")
    assert parse_paper("whole", without).plans(quick=True) == {}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('experiment = "net"', 'experiment = "nut"', "there is no experiment 'nut'"),
        ("at_least = 2.0", "at_least = 2.0, at_most = 3.0", "at most one of"),
        (", at_least = 2.0", "", "nothing would be judged"),
        ('"speedup", at_least', '"weight_error", at_least', "a layer belongs to"),
        ('"speedup", at_least', '"weight_error_ratio", layer = "conv2", at_least', "needs `against`"),
        ("differs =", 'against = {experiment = "net", method = "jaderberg"}\ndiffers =', "against would do nothing"),
        ('"speedup", at_least', '"sped", at_least', r"claims\.0\.checks\.0\.metric = 'sped'"),
        ("[experiments.net.measure]", "[experiments.net.measure]\nthreads = ['all']", "give their number"),
        ('recipe = "standard"', "", r"experiments\.net\.sweep\.recipe"),
        ("[[claims]]", "[[claims]", "not valid TOML"),
    ],
)
def test_mistakes_in_a_paper_are_named(old: str, new: str, words: str) -> None:
    assert old in PAPER
    with pytest.raises(lrb.InvalidSweep, match=words) as caught:
        parse_paper("planted", PAPER.replace(old, new, 1))
    assert "planted" in str(caught.value)


def test_a_claim_of_each_is_as_many_claims() -> None:
    each = 'each = [{ method = "tucker", half = "1/2" }, { method = "jaderberg", half = "0.5" }]\n'
    told = PAPER.replace('method = "tucker"', 'method = "{method}"').replace('paper = "2x"', 'paper = "{half} of it"')
    told = told.replace("[[claims]]\n", f"[[claims]]\n{each}")
    claims = parse_paper("each", told).claims
    assert [(c.models.method, c.paper) for c in claims] == [("tucker", "1/2 of it"), ("jaderberg", "0.5 of it")]
    with pytest.raises(lrb.InvalidSweep, match=r"'\{half\} of it' has names that `each` does not give: method"):
        parse_paper("each", told.replace(', half = "1/2"', ""))


def test_a_claim_about_time_needs_times() -> None:
    start, end = PAPER.index("[experiments.net.measure]"), PAPER.index("[experiments.net.quick]")
    with pytest.raises(lrb.InvalidSweep, match=r"no \[measure\]"):
        parse_paper("planted", PAPER[:start] + PAPER[end:])


def test_names_that_do_not_exist_are_named() -> None:
    with pytest.raises(lrb.UnknownName, match="did you mean 'lebedev2015'"):
        load_paper("lebedef2015")
    with pytest.raises(lrb.InvalidSweep, match="did you mean 'tucker'"):
        parse_paper("planted", PAPER.replace('"tucker", "jad', '"tuker", "jad')).plans()
