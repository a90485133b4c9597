"""Segments that no socket sent so: written by hand, or changed on the way. On the real kernel."""

from __future__ import annotations

import pytest
import skips
from command import Netlab
from flagship import FLAGSHIP, document, over_ipv6, run_document
from private_lab import PrivateLab

from netlab.analysis.result import TrialResult
from netlab.linux.ethtool import computes_checksums, set_computes_checksums

pytestmark = pytest.mark.kernel

NAMES = ("crafted", "crafted-ahead", "bad-checksum")
FIXES = (None, "drop-invalid", "be-liberal")
TRIALS = 2


def fate(trial: TrialResult) -> list[str]:
    """What the evidence has beyond the request."""
    return [piece.link.value for piece in trial.evidence][2:]


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("fix", FIXES)
@pytest.mark.parametrize("name", NAMES)
def test_each_trial_ends_as_its_document_expects(name: str, fix: str | None) -> None:
    result, _, expected = run_document(name, TRIALS, fix)
    assert [(trial.outcome, trial.missing) for trial in result.trials] == [(expected, ())] * TRIALS


@pytest.mark.usefixtures("as_root")
def test_what_is_far_below_the_window_is_translated_where_it_is_forgiven() -> None:
    skips.skip_unless_capability("forgives-late-segments")
    result, _, _ = run_document("crafted", TRIALS)
    assert [fate(trial) for trial in result.trials] == [["reply", "invalid", "reply-translated"]] * TRIALS
    assert [trial.invalid for trial in result.trials] == [0] * TRIALS


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("fix", FIXES)
def test_what_is_corrupt_is_invalid_with_any_fix_and_never_answered(fix: str | None) -> None:
    result, recording, _ = run_document("bad-checksum", TRIALS, fix)
    arrives = [] if fix == "drop-invalid" else ["reply-untranslated"]
    assert [fate(trial) for trial in result.trials] == [["reply", "invalid", *arrives]] * TRIALS
    assert all(trial.invalid > 1 for trial in result.trials)
    found = {event.netns for event in recording.events if getattr(event, "name", "") == "Tcp.InCsumErrors"}
    assert ("client" in found) is bool(arrives)


@pytest.mark.usefixtures("as_root")
def test_corruption_ends_with_the_trial() -> None:
    part = document("bad-checksum")
    with PrivateLab(part.topology) as namespaces:
        part.run(namespaces, 1)
        assert "netlab" not in namespaces.run("server-node", "nft", "list", "tables")
        with namespaces.inside("server"):
            assert computes_checksums("eth0")
            set_computes_checksums("eth0", False)
            assert not computes_checksums("eth0")
            with pytest.raises(OSError, match="No such device"):
                computes_checksums("eth9")


@pytest.mark.parametrize("name", NAMES)
def test_as_an_ordinary_user(name: str, netlab: Netlab, lab_name: str, rootless: None) -> None:
    file = FLAGSHIP.parent / "experiments" / f"{name}.yaml"
    for capability in document(name).experiment.needs:
        skips.skip_unless_capability(capability)
    done = netlab("run", file, "--name", lab_name, "--rootless", "--trials", "1")
    assert done.returncode == 0, done.stdout + done.stderr  # as the document expects


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("name", ["crafted-ahead", "bad-checksum"])
def test_over_ipv6(name: str) -> None:
    result, _, expected = run_document(name, TRIALS, text=over_ipv6())
    assert [(trial.outcome, trial.missing) for trial in result.trials] == [(expected, ())] * TRIALS
