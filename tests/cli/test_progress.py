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


def test_what_ctrl_c_echoes_does_not_cut_the_line_in_two(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    """A terminal echoes ^C where the cursor is: at the right edge it would go on in the next line."""
    text = SLOW.replace("READY", f"command: 'false {'x' * 200}'")
    lab = labs.make(netlab, lab_name, tmp_path, privilege, text)
    with terminal(lab, *netlab.argv("up", lab.file, "--name", lab_name, privilege)) as screen:
        screen.resize(24, 60)
        shown = screen.expect(r"\r\x1b\[Kwaiting for client: [^\r]*")
        assert len(shown.removeprefix("\r\x1b[K")) <= 57 and shown.endswith("...")
        screen.type("\x03")
        # At a ^C the kernel discards what is on its way: half of a line drawn again may follow the echo.
        assert screen.expect(r"\^C[^\n]*\r\x1b\[Knetlab: interrupted")
        assert screen.wait() == 130
