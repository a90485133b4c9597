"""A connection whose packets take another node from some point on. On the real kernel."""

from __future__ import annotations

import json

import pytest
from command import Netlab
from places import TOPOLOGIES

pytestmark = pytest.mark.kernel


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize(("fix", "outcome"), [((), "reset"), (("--fix", "be-liberal"), "completed")])
def test_the_first_node_leaves_the_answers_alone(
    netlab: Netlab, lab_name: str, fix: tuple[str, ...], outcome: str
) -> None:
    file = TOPOLOGIES / "experiments" / "path-flip.yaml"
    done = netlab("run", file, "--name", lab_name, "--trials", "1", "--format", "json", *fix)
    (trial,) = json.loads(done.stdout)["trials"]
    assert (trial["outcome"], trial["missing"], done.returncode) == (outcome, [], 0)
    told = [piece["link"] for piece in trial["evidence"]]
    assert ("reply-untranslated" in told) is (outcome == "reset")
