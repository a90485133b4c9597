"""A connection whose packets take another node from some point on. On the real kernel."""

from __future__ import annotations

import pytest
from flagship import document
from private_lab import PrivateLab

from netlab.analysis.result import Outcome

pytestmark = pytest.mark.kernel


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize(("fix", "outcome"), [(None, Outcome.RESET), ("be-liberal", Outcome.COMPLETED)])
def test_the_first_node_leaves_the_answers_alone(fix: str | None, outcome: Outcome) -> None:
    part = document("path-flip", fix)
    with PrivateLab(part.topology) as namespaces:
        result, _ = part.run(namespaces, 1, fix)
    (trial,) = result.trials
    assert (trial.outcome, trial.missing, trial.flow.node) == (outcome, (), "client-node")
    told = [piece.link.value for piece in trial.evidence]
    assert ("reply-untranslated" in told) is (outcome is Outcome.RESET)
