"""A namespace's own nftables tables: what `lint` says of their text, and that they live and go with the lab."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import labs
import pytest
import skips
from command import Netlab

pytestmark = pytest.mark.kernel

COUNTED = """
namespaces:
  client: {}
  server:
    tables:
      inet tour: |
        set seen { type ipv4_addr; flags dynamic; size 100; }

        chain input {
          type filter hook input priority filter
          iif eth0 udp dport 9 counter add @seen { ip saddr }
        }
links:
  - ends: [client, server]
"""
"""A server that counts the datagrams to its port 9, and notes who sent them."""

WRONG = """\
namespaces:
  a: &wrong
    tables:
      inet one: |2

        chain in {
          type nat hook forward priority 0
        }
      inet two: |
        chain in {
          type filter hook input priority 0
          iif eth0 accept
          iif eth1 accept
          tcp dport 80 acept
        }
      inet three: "chain in { type filter hook input priority 0;\\n iif eth9 }"
      inet four: "${four}"
  b: {tables: {ip five: "chain x { jump y; }"}}
  c: *wrong
links:
  - ends: [a, b]
"""


@pytest.fixture
def lab(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> labs.Lab:
    """The counting lab, up."""
    skips.skip_unless_program("nft")
    counted = labs.make(netlab, lab_name, tmp_path, privilege, COUNTED)
    counted.up()
    return counted


def places(said: str) -> str:
    """Problems without nft's own words, which change from version to version."""
    return re.sub(r"(?<= nft: ).*", "…", said)


def send(lab: labs.Lab) -> None:
    """A datagram from the client to the server's port 9."""
    lab.exec(
        "client",
        "python3",
        "-c",
        "import socket; socket.socket(2, 2).sendto(b'x', ('server', 9))",
    )


def test_packets_meet_a_table_and_what_they_add_to_its_sets_is_no_drift(lab: labs.Lab) -> None:
    send(lab)
    lab.exec("server", "nft", "add", "element", "inet", "tour", "seen", "{ 10.9.9.9 }")
    listed = lab.exec("server", "nft", "list", "table", "inet", "tour")
    assert "udp dport 9 counter packets 1 " in listed
    assert "elements = { 10.9.9.9, 10.255.0.1 }" in listed
    assert lab.drift() == []
    assert lab.up() == f"lab {lab.name} is up: nothing to do\n"


def test_an_edit_replaces_a_table_and_removes_it_and_a_users_own_stays(lab: labs.Lab) -> None:
    lab.exec("server", "nft", "add table inet mine; add table ip tour")
    lab.write(COUNTED.replace("udp dport 9 ", "udp dport 10 "))
    assert lab.up() == f"lab {lab.name} is up: 1 change\n  server: table inet tour\n"
    assert "udp dport 10 counter" in lab.exec("server", "nft", "list", "table", "inet", "tour")
    lab.write(labs.TWO)
    assert lab.up() == f"lab {lab.name} is up: 1 change\n  server: table inet tour removed\n"
    assert lab.exec("server", "nft", "list", "tables") == "table inet mine\ntable ip tour\n"
    assert lab.up() == f"lab {lab.name} is up: nothing to do\n"


def test_a_table_that_nft_refuses_is_told_with_its_place_and_changes_nothing(lab: labs.Lab) -> None:
    before = lab.exec("server", "nft", "-s", "list", "ruleset")
    lab.write(COUNTED.replace("udp dport 9 ", "udp dprt 9 "))
    refused = lab.try_up()
    assert (refused.returncode, refused.stdout) == (2, "")
    assert places(refused.stderr) == f"{lab.file}:11:24: namespaces.server.tables.inet tour: nft: …\n"
    assert lab.exec("server", "nft", "-s", "list", "ruleset") == before


def test_up_makes_nothing_where_nft_refuses_a_table(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    skips.skip_unless_program("nft")
    lab = labs.make(netlab, lab_name, tmp_path, privilege, COUNTED.replace("hook input", "hook inpt"))
    refused = lab.try_up("--verbose")
    assert refused.returncode == 2
    assert places(refused.stderr) == f"{lab.file}:10:28: namespaces.server.tables.inet tour: nft: …\n"
    assert not netlab.rundir.exists()


def test_lint_tells_what_nft_has_against_each_table(netlab: Netlab, tmp_path: Path) -> None:
    skips.skip_unless_userns()
    (tmp_path / "wrong.yaml").write_text(WRONG)
    told = netlab("lint", "wrong.yaml", "--set", "vars={four: chain x y}", cwd=tmp_path)
    assert (told.returncode, told.stdout) == (2, "")
    assert places(told.stderr) == textwrap.dedent("""\
        wrong.yaml:6:15: namespaces.a.tables.inet one: nft: …
        wrong.yaml:6:15: namespaces.c.tables.inet one: nft: …
        wrong.yaml:12:15: namespaces.c.tables.inet two: nft: …
        wrong.yaml:13:15: namespaces.a.tables.inet two: nft: …
        wrong.yaml:13:15: namespaces.c.tables.inet two: nft: …
        wrong.yaml:14:29: namespaces.a.tables.inet two: nft: …
        wrong.yaml:14:29: namespaces.c.tables.inet two: nft: …
        wrong.yaml:16:19: namespaces.a.tables.inet three: in its line 2: nft: …
        wrong.yaml:16:19: namespaces.c.tables.inet three: in its line 2: nft: …
        wrong.yaml:17:18: namespaces.a.tables.inet four: nft: …
        wrong.yaml:17:18: namespaces.c.tables.inet four: nft: …
        wrong.yaml:18:25: namespaces.b.tables.ip five: nft: …
        """)


def test_a_sound_table_may_name_the_namespaces_interfaces(netlab: Netlab, tmp_path: Path) -> None:
    skips.skip_unless_userns()
    (tmp_path / "sound.yaml").write_text(COUNTED)
    told = netlab("lint", "sound.yaml", cwd=tmp_path)
    assert (told.returncode, told.stderr) == (0, "sound.yaml: lab sound is sound\n")
