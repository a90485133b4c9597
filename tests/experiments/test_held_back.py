"""A segment that comes after its own retransmission, on the real kernel."""

from __future__ import annotations

import pytest
import skips
from command import Netlab
from flagship import FLAGSHIP, document, run_document
from private_lab import PrivateLab

from netlab.analysis.result import Outcome
from netlab.experiments.trials import observe_run
from netlab.topology import load

pytestmark = pytest.mark.kernel

NAME = "late-retransmit"


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("fix", [None, "drop-invalid", "be-liberal"])
def test_each_trial_ends_as_the_document_expects(fix: str | None) -> None:
    result, _, expected = run_document(NAME, 2, fix)
    assert [(trial.outcome, trial.missing) for trial in result.trials] == [(expected, ())] * 2
    for trial in result.trials:
        (reply,) = [piece for piece in trial.evidence if piece.link.value == "reply"]
        assert reply.relative_seq is not None
        assert 15_001 <= reply.relative_seq < 17_000


@pytest.mark.usefixtures("as_root")
def test_it_is_translated_where_it_is_forgiven() -> None:
    skips.skip_unless_capability("forgives-late-segments")
    result, _, _ = run_document(NAME, 1)
    links = [piece.link.value for piece in result.trials[0].evidence]
    assert links == ["request", "request-translated", "reply", "invalid", "reply-translated"]


@pytest.mark.usefixtures("as_root")
def test_nothing_is_held_back_after_the_trial() -> None:
    skips.skip_unless_capability("htb")
    part = document(NAME)
    with PrivateLab(part.topology) as namespaces:
        part.run(namespaces, 1)
        assert "htb" not in namespaces.run("server-node", "tc", "qdisc", "show", "dev", "eth0")
        assert "netlab" not in namespaces.run("server-node", "nft", "list", "tables")


@pytest.mark.usefixtures("as_root")
def test_an_interface_with_a_qdisc_is_left_alone() -> None:
    text = FLAGSHIP.read_text().replace(
        '["client-node:eth0", "server-node:eth0"]',
        '["client-node:eth0", {netns: server-node, ifname: eth0, qdisc: {kind: pfifo, limit: 1000}}]',
    )
    part = document(NAME)
    topology = load(text, FLAGSHIP.name)
    with PrivateLab(topology) as namespaces:
        result, _, _ = observe_run(topology, part.experiment, (), namespaces, 1)  # type: ignore[arg-type]
    (trial,) = result.trials
    missing = "an interface without a qdisc of its own: server-node:eth0 has one"
    assert (trial.outcome, trial.missing) == (Outcome.INCONCLUSIVE, (missing,))


def test_as_an_ordinary_user(netlab: Netlab, lab_name: str, rootless: None) -> None:
    skips.skip_unless_capability("htb")
    file = FLAGSHIP.parent / "experiments" / f"{NAME}.yaml"
    done = netlab("run", file, "--name", lab_name, "--rootless", "--trials", "1")
    assert done.returncode == 0, done.stdout + done.stderr  # as the document expects
