"""The line that `netlab up` shows on a terminal while it takes its time."""

from __future__ import annotations

from pathlib import Path

import labs
import pytest
from command import Netlab
from terminals import terminal

pytestmark = pytest.mark.kernel

SLOW = """
namespaces:
  client:
    programs:
      - {name: web, command: sleep 100, ready: {READY, timeout_s: 100}}
"""


@pytest.mark.parametrize(
    ("ready", "awaited"),
    [
        ("listening: 80", r"\(listening on 80\)"),
        ("output: up", r"\(output 'up'\)"),
        ("command: 'false'", r"\(command 'false'\)"),
    ],
)
def test_it_says_what_is_waited_for(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path, ready: str, awaited: str
) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege, SLOW.replace("READY", ready))
    with terminal(lab, *netlab.argv("up", lab.file, "--name", lab_name, privilege)) as screen:
        screen.resize(24, 100)
        screen.expect(rf"\r\x1b\[Kwaiting for client: program web {awaited} …")
        screen.type("\x03")
        screen.expect(r"\r\x1b\[Knetlab: interrupted")
        assert screen.wait() == 130
