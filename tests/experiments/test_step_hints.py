"""Documents that are wrong in one place are told of that place alone."""

from __future__ import annotations

from pathlib import Path

from command import Netlab

DOCUMENT = """
claim: It arrives.
topology: kube-proxy-reset.yaml
client: client
service: web
expect: {plain: completed}
steps:
  - connect
  - observe: {packt: {}}
"""


def test_a_step_that_only_observes_needs_no_stimulus(netlab: Netlab, tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text("namespaces: {client: {}}\n")
    (tmp_path / "own.yaml").write_text(DOCUMENT.replace("kube-proxy-reset.yaml", "lab.yaml"))
    done = netlab("lint", "own.yaml", cwd=tmp_path)
    places = [line.split(": ")[1] for line in done.stderr.splitlines() if line.startswith("own.yaml:")]
    assert "steps[1].observe" in places
    assert "steps[1]" not in places
    assert "stimulus" not in done.stderr
