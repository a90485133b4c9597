"""tc's words become the numbers that tc itself makes of them: the kernel's answer to our request and to tc's agree."""

from __future__ import annotations

import re
import subprocess

import pytest
import skips

from netlab.errors import UnsupportedError
from netlab.lab import qdiscs
from netlab.lab.steps import AddQdisc
from netlab.linux import tc, tcdump
from netlab.model import Qdisc


def test_the_words_of_each_kind_become_pyroute2s_arguments() -> None:
    words = {
        "tbf": (("rate", "1mbit"), ("burst", "16kb"), ("latency", "50ms")),
        "htb": (("rate", "1mbit"), ("ceil", "2mbit"), ("burst", "3k"), ("cburst", "4k"), ("quantum", "1500")),
        "pfifo": (("limit", "10"),),
        "bfifo": (("limit", "10kb"),),
        "netem": (
            *(("delay", "10ms 2ms 25%"), ("loss", "1% 50%"), ("duplicate", "2%"), ("corrupt", "0.5%")),
            *(("reorder", "25% 50%"), ("gap", "5"), ("rate", "1mbit"), ("limit", "100")),
        ),
    }
    assert {kind: qdiscs.arguments(Qdisc(kind, parameters)) for kind, parameters in words.items()} == {
        "tbf": {"rate": 125_000, "burst": 16_384, "latency": 50_000},
        "htb": {"rate": 125_000, "ceil": 250_000, "burst": 3072, "cburst": 4096, "quantum": 1500},
        "pfifo": {"limit": 10},
        "bfifo": {"limit": 10_240},
        "netem": {
            "delay": 10_000,
            "jitter": 2000,
            "delay_corr": 25.0,
            "loss": 1.0,
            "loss_corr": 50.0,
            "duplicate": 2.0,
            "prob_corrupt": 0.5,
            "prob_reorder": 25.0,
            "corr_reorder": 50.0,
            "gap": 5,
            "rate": 125_000,
            "limit": 100,
        },
    }


# --- in the kernel -------------------------------------------------------------------------------------------------


@pytest.fixture
def veth(own_netns: None) -> int:
    """The ifindex of eth0, a veth in a network namespace in which the test runs."""
    skips.skip_unless_program("tc")
    subprocess.run(["ip", "link", "add", "eth0", "index", "7", "type", "veth", "peer", "name", "eth1"], check=True)
    subprocess.run(["ip", "link", "set", "eth0", "up"], check=True)
    return 7


def told() -> str:
    """All that tc says of eth0."""
    commands = ("tc -d qdisc show dev eth0", "tc -d class show dev eth0")
    return "".join(subprocess.run(c.split(), capture_output=True, text=True, check=True).stdout for c in commands)


def by_hand(qdisc: Qdisc) -> None:
    """Carry out what `netlab plan` prints, without its namespace."""
    for line in AddQdisc("netns", "eth0", qdisc).twin("").splitlines():
        subprocess.run(line.replace("tc -n netns ", "tc ").split(), check=True)


def qdisc_of(text: str) -> Qdisc:
    kind, *words = text.split(";")
    return Qdisc(kind, tuple((word.split(" ", 1)[0], word.split(" ", 1)[1]) for word in words))


@pytest.mark.kernel
@pytest.mark.parametrize(
    "text",
    [
        "tbf;rate 1mbit;burst 16kb;latency 50ms",
        "tbf;rate 100kbit;burst 1600;limit 30kb",
        "tbf;rate 1.5mbps;burst 3kb;latency 1.5s",
        "tbf;rate 1mbit;burst 16kb;limit 64kb;peakrate 2mbit;mtu 2kb",
        "tbf;rate 1mbit;burst 16kb;latency 500msecs;peakrate 2mbit;mtu 2kb",
        "htb;rate 1mbit",
        "htb;rate 1mbit;ceil 2mbit",
        "htb;rate 10gbit;ceil 20gbit",
        "htb;rate 50gbit;ceil 100gbit",
        "htb;rate 1mbit;ceil 2mbit;burst 3k;cburst 4k;quantum 1500",
        "pfifo",
        "pfifo;limit 10",
        "bfifo",
        "bfifo;limit 10kb",
        "netem;delay 10ms 2ms 25%;loss 1% 50%;duplicate 2%;reorder 25% 50%;gap 5;rate 1mbit;limit 100",
    ],
)
def test_a_qdisc_is_the_one_that_tc_makes_of_the_same_words(veth: int, text: str) -> None:
    qdisc = qdisc_of(text)
    if not qdisc.kind.endswith("fifo"):
        skips.skip_unless_capability(qdisc.kind)
    by_hand(qdisc)
    wanted = told()
    subprocess.run(["tc", "qdisc", "del", "dev", "eth0", "root"], check=True)
    qdiscs.replace_root(veth, qdisc)
    assert told() == wanted


@pytest.mark.kernel
def test_one_replaces_another_of_its_kind_and_deleting_leaves_the_kernels_own(veth: int) -> None:
    before = told()
    for text in ("bfifo;limit 2048", "bfifo;limit 4096"):
        qdiscs.replace_root(veth, qdisc_of(text))
    assert re.sub(r"refcnt \d+ ", "", told()) == "qdisc bfifo 1: root limit 4Kb\n"
    tc.delete_root(veth)
    assert told() == before
    with pytest.raises(OSError, match="No such file or directory"):
        tc.delete_root(veth)


@pytest.mark.kernel
def test_roots_are_those_that_someone_set_with_htbs_class(veth: int) -> None:
    skips.skip_unless_capability("htb")
    assert tcdump.roots() == {}
    qdiscs.replace_root(veth, qdisc_of("htb;rate 1mbit"))
    slow = tcdump.roots()
    tc.delete_root(veth)
    qdiscs.replace_root(veth, qdisc_of("htb;rate 2mbit"))
    fast = tcdump.roots()
    assert list(slow) == list(fast) == [veth]
    assert slow[veth][0] == fast[veth][0] == "htb"
    assert slow != fast


@pytest.mark.kernel
def test_a_refusal_is_an_error_with_the_kernels_reason(veth: int) -> None:
    with pytest.raises(OSError, match="No such device"):
        qdiscs.replace_root(999, qdisc_of("pfifo;limit 10"))


@pytest.mark.kernel
def test_a_discipline_that_the_kernel_lacks_is_named(veth: int) -> None:
    with pytest.raises(UnsupportedError) as raised:
        qdiscs.replace_root(veth, qdisc_of("nosuch;limit 10"))
    assert str(raised.value) == (
        "this kernel has no queueing discipline nosuch\n"
        "  hint: it needs CONFIG_NET_SCH_NOSUCH, or its module sch_nosuch"
    )


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("netem;gap 5", "Invalid argument: gap can only be set when prob_reorder is set"),
        ("tbf;rate 50gbit;burst 1mb;limit 1mb", "Invalid argument: 'I' format requires 0 <= number <= 4294967295"),
    ],
)
def test_words_that_do_not_go_together_are_refused(veth: int, text: str, words: str) -> None:
    with pytest.raises(OSError) as raised:
        qdiscs.replace_root(veth, qdisc_of(text))
    assert raised.value.strerror == words
