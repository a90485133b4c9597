"""A conntrack that forgets how far one end's windows are shifted, on the real kernel."""

from __future__ import annotations

import pytest
import skips
from command import Netlab
from flagship import FLAGSHIP, WITHOUT_ENTRIES, document
from private_lab import PrivateLab

from netlab.analysis import explain
from netlab.analysis.crosscheck import crosscheck
from netlab.analysis.findings import analyse
from netlab.analysis.timeline import build
from netlab.experiments.catalogue import runs
from netlab.observe.recorder import Source
from netlab.report import explanation

pytestmark = pytest.mark.kernel

TRIALS = 2
FILE = FLAGSHIP.parent / "experiments" / "lost-scale.yaml"


def skip_unless_able() -> None:
    for capability in document("lost-scale").experiment.needs:
        skips.skip_unless_capability(capability)


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize(
    ("fix", "fate"), [(None, "reply-untranslated"), ("drop-invalid", "invalid"), ("be-liberal", "reply-translated")]
)
def test_each_trial_ends_as_its_document_expects(fix: str | None, fate: str) -> None:
    skip_unless_able()
    part = document("lost-scale", fix)
    (found,) = runs(FILE.read_text(), str(FILE))
    with PrivateLab(part.topology) as namespaces:
        source = Source(found.text, found.settings, (fix,) if fix else ())
        result, recording = part.run(namespaces, TRIALS, fix, source=source)
        assert "tbf" not in namespaces.run("client-node", "tc", "qdisc", "show")
    assert [(trial.outcome, trial.missing) for trial in result.trials] == [(result.expected, ())] * TRIALS
    for trial in result.trials:
        assert fate in [piece.link.value for piece in trial.evidence]
        assert any("past the window that conntrack on client-node knows" in piece.note for piece in trial.evidence)
    assert crosscheck(result.trials, build(recording))[1] == ()
    story = " ".join(explanation.render(explain.explain(analyse(recording))).split())
    assert "shifts client's windows by 0 bits from now on, and not by 7: it takes them for 128 times smaller" in story


def test_as_an_ordinary_user(netlab: Netlab, lab_name: str, rootless: None) -> None:
    skip_unless_able()
    done = netlab("run", FILE, "--name", lab_name, "--rootless", "--trials", "1")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


@pytest.mark.usefixtures("as_root")
def test_scales_that_nobody_has_cannot_be_changed(netlab: Netlab, lab_name: str) -> None:
    skip_unless_able()
    elsewhere = ("--set", "experiment.steps.1.window-scale.in=server-node")
    done = netlab("run", FILE, "--name", lab_name, "--trials", "1", "--format", "json", *elsewhere, *WITHOUT_ENTRIES)
    assert done.returncode == 3
    assert '"an entry of the connection, with window scales, in server-node\'s conntrack"' in done.stdout
