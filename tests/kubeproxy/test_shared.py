"""What of a table is ours, and how it is replaced among what others have put into it."""

from __future__ import annotations

import pytest

from netlab.kubeproxy import shared
from netlab.kubeproxy.objects import Chain as ObjectsChain
from netlab.kubeproxy.objects import Set
from netlab.kubeproxy.objects import Table as ObjectsTable
from netlab.kubeproxy.rules import Chain, Hook, Jump, Rule, Table, Verdict

LISTING = """\
table ip nat { # handle 1
	set seen { # handle 5
		type ipv4_addr
		elements = { 192.0.2.1,
			     192.0.2.2 }
	}

	chain PREROUTING { # handle 1
		type nat hook prerouting priority dstnat; policy accept;
		ip saddr 192.0.2.9 counter # handle 16
		counter jump KUBE-SERVICES comment "x" # handle 7
		ip daddr @seen jump mine # handle 15
	}

	chain KUBE-SERVICES { # handle 3
		counter jump KUBE-OLD # handle 9
	}

	chain KUBE-OLD { # handle 2
		counter # handle 8
	}

	chain mine { # handle 4
		counter jump KUBE-KEPT # handle 12
	}

	chain KUBE-KEPT { # handle 6
	}
}
"""  # noqa: E101 (nft's own tabs)
HOOK = Hook("nat", "prerouting", -100)
NEW = Table(
    "ip",
    "nat",
    (
        Chain("PREROUTING", (Rule(Jump("KUBE-SERVICES")),), HOOK),
        Chain("KUBE-SERVICES", (Rule(Verdict.ACCEPT),)),
    ),
)
OLD = NEW._replace(chains=(*NEW.chains, Chain("KUBE-OLD"), Chain("KUBE-KEPT")))


def test_ours_is_what_the_rules_name_and_the_jumps_to_it() -> None:
    assert (
        shared.ours(LISTING, shared.owned_by([OLD]))
        == """\
ip nat chain KUBE-KEPT {
}
ip nat chain KUBE-OLD {
counter
}
ip nat chain KUBE-SERVICES {
counter jump KUBE-OLD
}
ip nat chain PREROUTING {
type nat hook prerouting priority dstnat; policy accept;
counter jump KUBE-SERVICES comment "x"
}
"""
    )


def test_ours_is_replaced_where_it_stands_among_the_others() -> None:
    assert (
        shared.replacement(LISTING, shared.owned_by([OLD]), [NEW])
        == """\
add chain ip nat KUBE-SERVICES
insert rule ip nat PREROUTING handle 7 counter jump KUBE-SERVICES
delete rule ip nat PREROUTING handle 7
flush chain ip nat KUBE-SERVICES
flush chain ip nat KUBE-OLD
flush chain ip nat KUBE-KEPT
delete chain ip nat KUBE-OLD
table ip nat {
	chain PREROUTING {
		type nat hook prerouting priority -100; policy accept;
	}
	chain KUBE-SERVICES {
		counter accept
	}
}
"""
    )


def test_ours_is_removed_and_the_rest_stays() -> None:
    assert (
        shared.replacement(LISTING, shared.owned_by([OLD]), [])
        == """\
delete rule ip nat PREROUTING handle 7
flush chain ip nat KUBE-SERVICES
flush chain ip nat KUBE-OLD
flush chain ip nat KUBE-KEPT
delete chain ip nat KUBE-SERVICES
delete chain ip nat KUBE-OLD
"""
    )


def test_a_table_that_is_all_ours_goes_as_a_whole() -> None:
    own = {("ip", "kube-proxy"): {("chain", "filter-forward"), ("map", "m")}}
    listing = """\
table ip kube-proxy {
	map m {
		type ipv4_addr : verdict
	}
	chain filter-forward {
		type filter hook forward priority filter; policy accept;
		ct state invalid drop
	}
}
"""
    assert shared.replacement(listing, own, []) == "table ip kube-proxy\ndelete table ip kube-proxy\n"
    made = ObjectsTable("ip", "kube-proxy", "rules", (Set("m", "ipv4_addr : verdict"),), (ObjectsChain("services"),))
    assert shared.owned_by([made]) == {("ip", "kube-proxy"): {("map", "m"), ("chain", "services")}}
    assert shared.replacement("", {}, [made]).startswith("table ip kube-proxy {\n")


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("chain a { counter; }\nchain b {\n}", [("chain", "a"), ("chain", "b")]),
        ("set s { type ipv4_addr; elements = { 1.2.3.4 } }; map m { }", [("set", "s"), ("map", "m")]),
        ("# chain no { }\nct helper ftp { type \"ftp\" protocol tcp; }", [("ct helper", "ftp")]),
        ('comment "chain no {"\nflags dormant; counter c { packets 0 bytes 0 }', [("counter", "c")]),
        ("", []),
    ],
)  # fmt: skip
def test_what_a_body_declares(body: str, found: list[tuple[str, str]]) -> None:
    assert list(shared.declared(body)) == found


def test_a_body_is_replaced_beside_what_others_have_put_there() -> None:
    listing = LISTING.replace("ip nat", "inet tour")
    own = [("set", "seen"), ("chain", "PREROUTING"), ("chain", "KUBE-SERVICES")]
    assert (
        shared.replaced_body(listing, ("inet", "tour"), own, "\tchain new {\n\t}\n")
        == """\
flush chain inet tour PREROUTING
flush chain inet tour KUBE-SERVICES
delete set inet tour seen
delete chain inet tour PREROUTING
delete chain inet tour KUBE-SERVICES
table inet tour {
	chain new {
	}
}
"""
    )
