"""What programs in a lab print, are called, and make there is told by netlab, and nothing in it is obeyed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import labs
import pytest
from command import Netlab
from hostile import FORGED, HOSTILE, forbidden
from places import TOPOLOGIES

pytestmark = pytest.mark.kernel

WORD = HOSTILE.replace("\0", "") + FORGED
FLAGSHIP = TOPOLOGIES / "kube-proxy-reset.yaml"


def check(done: subprocess.CompletedProcess[str], code: int = 0) -> None:
    """It ends so, having told nothing that a terminal obeys, and no line of somebody else's."""
    assert done.returncode == code, done.stderr
    for stream in (done.stdout, done.stderr):
        assert forbidden(stream) == []
        assert FORGED not in stream
        assert "Traceback" not in stream


@pytest.fixture
def lab(netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str) -> Iterator[labs.Lab]:
    """The flagship's lab, not up yet."""
    lab = labs.make(netlab, lab_name, tmp_path, privilege, FLAGSHIP.read_text())
    (tmp_path / "experiments").symlink_to(TOPOLOGIES / "experiments")
    yield lab
    lab.down()


PRINTS = r"""
namespaces:
  client:
    programs:
      - name: rude
        command: [printf, 'one\n\033[2J\233\302\233\342\200\256\377\rtwo\nlab forged is up\n']
        ready: {listening: 80}
"""


def test_what_a_program_printed_is_quoted(netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str) -> None:
    done = labs.make(netlab, lab_name, tmp_path, privilege, PRINTS).try_up()
    check(done, 1)
    assert done.stderr.endswith(
        "ended (exit code 0) before it was ready; its last output:\n"
        "    one\n"
        "    \\x1b[2J\\x9b\\x9b\\u202e\\xff\\rtwo\n"
        "    lab forged is up\n"
    )


def test_what_is_run_inside_has_the_streams_to_itself(lab: labs.Lab) -> None:
    lab.up()
    assert lab.exec("client", "printf", "%s", WORD) == WORD
    for word in (WORD, "/" + WORD):
        done = lab.netlab("exec", "-l", lab.name, "client", "--", word)
        check(done, 127)
        assert done.stderr.startswith("netlab: ") and done.stderr.endswith(": command not found\n")


FOREIGN = """
ip link add "$(printf '\\033[2Jy')" type veth peer name "$(printf '\\302\\2332Jy')"
ip link add "$(printf 'z\\377')" type veth peer name z
for link in "$(printf '\\033[2Jy')" "$(printf 'z\\377')"; do
  ip link set "$link" alias "$(printf '\\033[2J\\377')" up
done
nft add table ip foreign "{ comment \\"$(printf '\\377\\033[2J')\\"; }"
nft add chain ip foreign c "{ type filter hook prerouting priority -500; }"
nft add rule ip foreign c counter comment "\\"$(printf 'r\\377\\033[2J')\\""
"""
"""What a program of a lab can make there."""

ODD = (
    """printf '\\377)\\033[2J\\n(' >/proc/self/comm"""
    + FOREIGN
    + """
nft add chain ip nat foreign "{ comment \\"$(printf '\\377\\233')\\"; }"
nft add rule ip nat KUBE-SERVICES counter comment "\\"$(printf 'r\\377\\033[2J')\\""
while :; do sleep 1; done
"""
)
"""The same, and what it can call itself, and do to kube-proxy's rules."""


def test_what_programs_make_and_call_themselves(lab: labs.Lab, tmp_path: Path) -> None:
    netns = "\n  client-node: {"
    topology = FLAGSHIP.read_text()
    assert netns in topology
    program = f"programs: [{{name: odd, command: [sh, {tmp_path / 'odd.sh'}]}}], "
    (tmp_path / "odd.sh").write_text(ODD)
    lab.write(topology.replace(netns, netns + program))
    lab.up()
    netlab, name = lab.netlab, lab.name
    labs.until(lambda: lab.drift() != [], "the program's rule among kube-proxy's")
    check(netlab("status", name))
    check(netlab("status"))
    check(netlab("watch", name, "--for", "0.2"))
    check(lab.try_up())
    check(netlab("fix", "apply", "-l", name, "be-liberal"))
    check(netlab("fix", "list", name))
    check(netlab("capture", "-l", name, "--for", "0.2", "-w", tmp_path / "p.pcapng", "client-node:eth0"))
    check(netlab("explain", name, "--for", "0.2"), 1)
    check(netlab("status", name, "--format", "json"))
    # Bytes that Python can't call a socket's interface by; the message says so.
    check(netlab("capture", "-l", name, "--for", "0.2", "-w", tmp_path / "p.pcapng"), 1)
    assert "ip foreign" in lab.exec("client-node", "nft", "list", "tables")


def test_a_bundle_of_a_lab_with_odd_names(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    lab = labs.Lab(netlab, lab_name, FLAGSHIP, privilege)
    lab.up()
    try:
        lab.exec("client-node", "sh", "-c", FOREIGN)
        check(netlab("run", lab_name, "--trials", "1", "--bundle", tmp_path / "b.zip", "--pcapng", tmp_path / "p"))
        check(netlab("report", tmp_path / "b.zip"))
        check(netlab("explain", tmp_path / "b.zip"))
    finally:
        lab.down()


@pytest.mark.parametrize("locale", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_in_a_locale_of_ascii(lab: labs.Lab, tmp_path: Path, locale: dict[str, str]) -> None:
    for command in (
        ("up", lab.file, "--name", lab.name, lab.privilege),
        ("status",),
        ("status", lab.name),
        ("watch", lab.name, "--for", "0.1"),
        ("down", lab.name),
        ("run", FLAGSHIP, "--name", lab.name, "--trials", "1", "--ladder", "--html", tmp_path / "r.html"),
        ("plan", lab.file),
        ("lint", lab.file),
        ("--help",),
        ("fix", "list"),
    ):
        done = lab.netlab.start(*command, env=locale)
        check(done)
        assert (done.stdout + done.stderr).isascii()


def test_a_lab_is_built_whether_or_not_somebody_can_be_told(lab: labs.Lab) -> None:
    argv = lab.netlab.argv("up", lab.file, "--name", lab.name, lab.privilege, "-v")
    with Path("/dev/full").open("w") as full:
        assert subprocess.run(argv, stderr=full, env=lab.netlab.environment(), timeout=60).returncode == 0
    assert lab.drift() == []


def test_a_lab_from_a_directory_with_an_odd_name(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    directory = tmp_path / os.fsdecode(f"{WORD.replace('/', '')[:100]}{FORGED}".encode() + b"\xff\x9b31m")
    directory.mkdir()
    lab = labs.make(netlab, lab_name, directory, privilege)
    check(lab.try_up())
    try:
        for command in (("status",), ("status", lab_name), ("status", "--format", "json")):
            check(netlab(*command))
        check(netlab("matrix", lab_name), 2)
        lab.write(labs.TWO + "vars: {x: 1}\n")
        check(lab.try_up("-v"))
        check(netlab("run", lab_name), 2)
        lab.write("namespaces: [")
        check(lab.try_up(), 2)
    finally:
        check(netlab("down", lab_name))
