"""What somebody else has put beside what is the lab's, in the very same tables, stays whatever netlab changes."""

from __future__ import annotations

from pathlib import Path

import labs
import pytest
import skips
from command import Netlab

pytestmark = [pytest.mark.kernel, pytest.mark.inside]

TOPOLOGY = """
namespaces:
  node:
    role: node
    tables:
      inet tour: |
        set seen { type ipv4_addr; elements = { 192.0.2.1 } }
        chain in { type filter hook input priority 0; ip saddr @seen counter; }
  client: {role: pod}
  server:
    role: pod
    programs: [{name: web, command: "python3 -m http.server 80", ready: {listening: 80}}]
bridges: [{name: cni0, netns: node, ports: [client, server]}]
services: {web: {port: 80, endpoints: [server]}MORE}
kube_proxy: {HOW}
"""


def topology(how: str, more: str = "") -> str:
    """The file, with kube-proxy's manner and with more Services."""
    return TOPOLOGY.replace("MORE", more).replace("HOW", how)


MINE = """
table ip {nat} {{
  set mine {{ type ipv4_addr; elements = {{ 192.0.2.7 }}; }}
  map places {{ type ipv4_addr : verdict; elements = {{ 192.0.2.8 : drop }}; }}
  chain mine {{ ip saddr @mine counter; ip daddr vmap @places; }}
}}
table ip {nat} {{
  chain {base} {{ type nat hook prerouting priority {priority}; policy accept; }}
}}
insert rule ip {nat} {base} ip saddr 192.0.2.9 counter comment "mine before"
add rule ip {nat} {base} jump mine
table inet tour {{
  set mine {{ type ipv4_addr; }}
  chain mine {{ ip saddr @mine counter; }}
}}
"""


def make(netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str, how: str) -> labs.Lab:
    skips.skip_unless_program("nft")
    skips.skip_unless_program("curl")
    lab = labs.make(netlab, lab_name, tmp_path, privilege, topology(how))
    lab.up()
    return lab


def fetch(lab: labs.Lab) -> str:
    return lab.exec("client", "curl", "-sS", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}", "http://web/")


@pytest.mark.parametrize(
    ("how", "nat", "base", "priority"),
    [("", "nat", "PREROUTING", -100), ("mode: nftables", "kube-proxy", "before", -101)],
)
def test_what_a_user_has_put_into_the_same_tables_stays(
    netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str, how: str, nat: str, base: str, priority: int
) -> None:
    lab = make(netlab, lab_name, tmp_path, privilege, how)
    lab.exec("node", "nft", "-f", "-", stdin=MINE.format(nat=nat, base=base, priority=priority))

    def mine() -> list[str]:
        told = lab.exec("node", "nft", "-s", "list", "ruleset").splitlines()
        return sorted(line for line in told if "mine" in line or "192.0.2.8" in line or "places" in line)

    before = mine()
    assert len(before) == 11, before
    assert lab.drift() == []
    for command in (("fix", "apply", "drop-invalid"), ("fix", "revert")):
        done = netlab(*command, "-l", lab.name)
        assert done.returncode == 0, done.stderr
        assert (mine(), lab.drift(), fetch(lab)) == (before, [], "200")
    lab.write(topology(how, ", aa: {port: 81, endpoints: [client]}"))
    lab.up()
    assert (mine(), lab.drift(), fetch(lab)) == (before, [], "200")
    lab.exec("node", "nft", "flush", "chain", "inet", "tour", "in")
    lab.exec("node", "nft", "flush", "chain", "ip", nat, "nat-prerouting" if how else base)
    assert lab.drift() == ["node: kube-proxy's rules", "node: table inet tour"]
    lab.up()
    assert (lab.drift(), fetch(lab)) == ([], "200")
    assert [line for line in mine() if "before" not in line and "jump" not in line] == [
        line for line in before if "before" not in line and "jump" not in line
    ]
    text = topology(how)
    lab.write(text.replace("services: {web: {port: 80, endpoints: [server]}}", "").replace("inet tour", "inet other"))
    lab.up()
    assert lab.drift() == []
    rest = lab.exec("node", "nft", "-s", "list", "ruleset")
    assert "KUBE-" not in rest
    assert "endpoint" not in rest
    assert {line for line in before if "before" not in line and "jump" not in line} <= set(rest.splitlines())


def test_a_table_of_somebody_elses_under_a_name_of_the_topologys_is_refused(
    netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str
) -> None:
    lab = make(netlab, lab_name, tmp_path, privilege, "")
    lab.exec("client", "nft", "-f", "-", stdin="table inet guard {\n chain mine { }\n}\n")
    guarded = topology("").replace("client: {role: pod}", "client: {role: pod, tables: {inet guard: 'chain in { }'}}")
    lab.write(guarded)
    refused = lab.try_up()
    assert refused.returncode == 1
    assert "another program has made a table of that name there\n  hint: remove it (nft delete table inet guard)" in (
        refused.stderr
    )
    assert "chain mine" in lab.exec("client", "nft", "list", "table", "inet", "guard")
    lab.exec("client", "nft", "delete", "table", "inet", "guard")
    assert "client: table inet guard" in lab.up()
