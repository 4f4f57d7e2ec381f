"""Every method at two budgets on charnet under pytest-benchmark: ``pytest tests/bench --benchmark-only``.

Untuned, so that it stays quick: speed is that of the sweeps, accuracy is not; see the leaderboard for that.
"""

from __future__ import annotations

import pytest

import lowrank_bench as lrb

BUDGETS = {"macs4": lrb.Budget(macs=4), "macs8": lrb.Budget(macs=8)}
CASES = [("charnet", method, budget) for method in lrb.methods() if method != "identity" for budget in BUDGETS]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("model", "method", "budget"), [("charnet", "identity", "dense"), *CASES])
def test_method(lowrank, model, method, budget):
    try:
        outcome = lowrank(model, method, BUDGETS.get(budget), batch=64)
    except (lrb.InvalidBudget, lrb.UnsupportedLayer) as refusal:
        pytest.skip(str(refusal))
    reached = outcome.compressed.dense_cost.macs / outcome.compressed.cost.macs
    assert reached == pytest.approx(BUDGETS[budget].ratio if budget in BUDGETS else 1, rel=0.05)
    assert outcome.top1 > 100 / 36
