"""What differs between kernels, as their capabilities tell, and else their release."""

from __future__ import annotations

import pytest

from netlab.conntrack.kernels import DECIDING, SINCE_6_1, TIMEOUTS_S, UNTIL_6_0, Rules, rules


@pytest.mark.parametrize(
    ("release", "forgiving"),
    [
        ("5.10.0-30-amd64", False),
        ("6.0.19", False),
        ("6.1.0", True),
        ("6.18.44-cloud", True),
        ("7.0", True),
        ("?", True),
    ],
)
def test_the_fates_of_a_release(release: str, forgiving: bool) -> None:
    assert rules(release).fates is (SINCE_6_1 if forgiving else UNTIL_6_0)


def test_what_was_tried_decides_before_the_release() -> None:
    assert rules("5.14.0-570.el9", [("forgives-late-segments", True)]).fates is SINCE_6_1
    assert rules("6.18.0", [("forgives-late-segments", False)]).fates is UNTIL_6_0
    assert [rules(release).syn_loses_scale for release in ("5.17", "5.18", "6.7", "6.8")] == [False, True, True, False]
    assert not rules("6.1.170", [("keeps-window-scale", True)]).syn_loses_scale
    assert rules("6.18.0", [("keeps-window-scale", False)]).syn_loses_scale


RELEASES = (
    *("5.10", "5.11", "5.12", "5.13", "5.14", "5.17", "5.18"),
    *("6.0", "6.1", "6.2", "6.6", "6.7", "6.8", "7.0", "7.1"),
)
BY_RELEASE = """
forgives-late-segments       5.10- 5.11- 5.12- 5.13- 5.14- 5.17- 5.18- 6.0-  6.1+  6.2+  6.6+  6.7+  6.8+  7.0+  7.1+
keeps-window-scale           5.10+ 5.11+ 5.12+ 5.13+ 5.14+ 5.17+ 5.18- 6.0-  6.1-  6.2-  6.6-  6.7-  6.8+  7.0+  7.1+
passes-challenged-rst        5.10- 5.11- 5.12- 5.13- 5.14- 5.17- 5.18- 6.0-  6.1-  6.2+  6.6+  6.7+  6.8+  7.0+  7.1+
restarts-by-syn-only         5.10- 5.11- 5.12- 5.13- 5.14- 5.17- 5.18+ 6.0+  6.1+  6.2+  6.6+  6.7+  6.8+  7.0+  7.1+
takes-any-rst-while-closing  5.10- 5.11- 5.12- 5.13- 5.14+ 5.17+ 5.18+ 6.0+  6.1+  6.2+  6.6+  6.7+  6.8+  7.0+  7.1+
checks-rst-after-own-syn     5.10- 5.11- 5.12- 5.13- 5.14- 5.17- 5.18- 6.0-  6.1-  6.2-  6.6-  6.7-  6.8-  7.0-  7.1+
logs-invalid-new             5.10- 5.11- 5.12- 5.13- 5.14- 5.17- 5.18- 6.0-  6.1-  6.2-  6.6-  6.7+  6.8+  7.0+  7.1+
logs-ignored-kind            5.10- 5.11- 5.12+ 5.13+ 5.14+ 5.17+ 5.18+ 6.0+  6.1+  6.2+  6.6+  6.7+  6.8+  7.0+  7.1+
"""


def has(kernel: Rules) -> dict[str, bool]:
    """What the rules make of each capability."""
    return {
        "forgives-late-segments": kernel.forgiving,
        "keeps-window-scale": not kernel.syn_loses_scale,
        "passes-challenged-rst": kernel.passes_challenged_rst,
        "restarts-by-syn-only": kernel.reinit_by_syn_only,
        "takes-any-rst-while-closing": kernel.rst_unchecked,
        "checks-rst-after-own-syn": kernel.rst_answers_other_side,
        "logs-invalid-new": kernel.logs_invalid_new,
        "logs-ignored-kind": "index" in kernel.ignored_text,
    }


def test_the_release_decides_what_was_not_tried() -> None:
    lines = [
        f"{name:28}" + "".join(f" {release + '-+'[has(rules(release))[name]]:5}" for release in RELEASES)
        for name in DECIDING
    ]
    assert "\n".join(line.rstrip() for line in lines) == BY_RELEASE.strip("\n")


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("name", DECIDING)
def test_each_capability_decides_one_thing_and_nothing_else(name: str, there: bool) -> None:
    new = dict.fromkeys(DECIDING, True)
    found = has(rules("6.18", [*(new | {name: there}).items()]))
    # A RST that answers a challenge ACK passes for another reason where any packet begins its side anew.
    follows = {"passes-challenged-rst": False} if name == "restarts-by-syn-only" and not there else {}
    assert found == new | {name: there} | follows


def test_what_was_guessed_is_said() -> None:
    assert rules("6.18").guessed == DECIDING
    assert rules("6.18", [(name, True) for name in DECIDING]).guessed == ()
    known = [(name, False) for name in DECIDING if name != "logs-invalid-new"]
    assert rules("6.18", known).guessed == ("logs-invalid-new",)


def test_without_sysctls_the_kernels_defaults_hold() -> None:
    found = rules("6.18")
    assert (found.be_liberal, found.loose, found.ignore_invalid_rst, found.max_retrans) == (False, True, False, 3)
    assert found.timeouts_s == TIMEOUTS_S
    assert found.invalid_text == "packet (index {kind}) in dir {direction} invalid, state {state}"
    assert rules("6.0").invalid_text == "invalid state"


def test_the_sysctls_of_a_namespace() -> None:
    found = rules(
        "6.18",
        (),
        {
            "nf_conntrack_tcp_be_liberal": "1",
            "nf_conntrack_tcp_loose": "0",
            "nf_conntrack_tcp_ignore_invalid_rst": "1",
            "nf_conntrack_tcp_max_retrans": "5",
            "nf_conntrack_tcp_timeout_established": "60",
            "nf_conntrack_tcp_timeout_max_retrans": "7",
            "nf_conntrack_tcp_timeout_unacknowledged": "8",
            "nf_conntrack_tcp_timeout_close": "a minute",
            "nf_conntrack_udp_timeout": "9",
            "ip_forward": "1",
        },
    )
    assert (found.be_liberal, found.loose, found.ignore_invalid_rst, found.max_retrans) == (True, False, True, 5)
    assert found.timeouts_s == {**TIMEOUTS_S, "ESTABLISHED": 60, "RETRANS": 7, "UNACK": 8}
