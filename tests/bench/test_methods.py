"""Every method at two budgets on charnet, or on the networks named: ``pytest tests/bench --benchmark-only``.

Untuned, so that it stays quick: speed is that of the sweeps, accuracy is not; see the leaderboard for that.
"""

from __future__ import annotations

import pytest

import lowrank_bench as lrb

BUDGETS = {"macs4": lrb.Budget(macs=4), "macs8": lrb.Budget(macs=8)}
DENSE = "identity"
NOT_HERE = {"narrow"}  # it is trained from scratch, for as long as the dense network was
LEAST = {"charnet": 80.0}
"""Percent of the validation images that a model without tuning gets right, where it is known."""
LESS = {("charnet", "channel_svd", "macs8"): 30.0, ("charnet", "depthwise_separable", "macs8"): 70.0}
CASES = [(method, budget) for method in lrb.methods() if method not in {DENSE, *NOT_HERE} for budget in BUDGETS]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cases = [
        (model, *case)
        for model in metafunc.config.getoption("models").split(",")
        for case in [(DENSE, "dense"), *CASES]
    ]
    metafunc.parametrize(("model", "method", "budget"), cases, ids=map("-".join, cases))


@pytest.mark.timeout(300)
def test_method(lowrank, model, method, budget):
    outcome = lowrank(model, method, BUDGETS.get(budget), batch=64)
    reached = outcome.compressed.dense_cost.macs / outcome.compressed.cost.macs
    assert reached == pytest.approx(BUDGETS[budget].ratio if budget in BUDGETS else 1, rel=0.05)
    if model in LEAST:
        assert outcome.top1 > LESS.get((model, method, budget), LEAST[model])
