"""What session affinity leaves in a node's sets: kept when rules are replaced."""

from __future__ import annotations

from netlab.kubeproxy.affinity import Memory, reminders

RULES = """\
table ip kube-proxy {
	comment "rules for kube-proxy"
	set cluster-ips {
		type ipv4_addr
		comment "Active ClusterIPs"
		elements = { 10.96.0.1, 10.96.0.2 }
	}

	set affinity-A-default/web/tcp/__10.0.1.2/80 {
		type ipv4_addr
		size 65535
		flags dynamic,timeout
		timeout 3h
	}

	set affinity-B-default/web/tcp/__10.0.1.3/80 {
		type ipv4_addr
		size 65535
		flags dynamic,timeout
		timeout 3h
	}

	chain services {
		ip daddr . meta l4proto . th dport vmap @service-ips
	}
}
table ip6 kube-proxy {
	set affinity-A-default/web/tcp/__10.0.1.2/80 {
		type ipv6_addr
		size 65535
		flags dynamic,timeout
		timeout 3h
	}
}
"""
A, B = "affinity-A-default/web/tcp/__10.0.1.2/80", "affinity-B-default/web/tcp/__10.0.1.3/80"


def listed(v4: str, v6: str) -> str:
    """The rules after clients have come: elements of the first set in either table."""
    parts = RULES.split("\t\ttimeout 3h\n")
    first, second, third = (
        f"\t\ttimeout 3h\n\t\telements = {{ {text} }}\n" if text else "\t\ttimeout 3h\n" for text in (v4, "", v6)
    )
    return "".join((parts[0], first, parts[1], second, parts[2], third, parts[3]))


def test_new_rules_are_reminded_of_the_clients_of_the_sets_they_have() -> None:
    told = listed(
        "10.0.0.9 expires 2h59m1s1ms,\n\t\t\t     10.0.0.10 expires 30s, 10.0.0.11 expires 0s", "fd00::9 expires 2h"
    )
    assert reminders(told, [Memory("ip", "kube-proxy", A, 10_800), Memory("ip", "kube-proxy", B, 10_800)]) == (
        f"add element ip kube-proxy {A} {{ 10.0.0.9 expires 10741001ms, 10.0.0.10 expires 30000ms }}\n"
    )
    assert reminders(told, [Memory("ip6", "kube-proxy", A, 10_800)]) == (
        f"add element ip6 kube-proxy {A} {{ fd00::9 expires 7200000ms }}\n"
    )
    assert reminders(told, [Memory("ip", "kube-proxy", B, 10_800)]) == ""
    assert reminders(RULES, [Memory("ip", "kube-proxy", A, 10_800)]) == ""


def test_nobody_is_remembered_longer_than_the_new_rules_say() -> None:
    told = listed("10.0.0.9 expires 2h, 10.0.0.10 expires 30s", "")
    assert reminders(told, [Memory("ip", "kube-proxy", A, 60)]) == (
        f"add element ip kube-proxy {A} {{ 10.0.0.9 expires 60000ms, 10.0.0.10 expires 30000ms }}\n"
    )
