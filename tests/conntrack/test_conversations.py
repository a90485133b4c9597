"""Conversations written by hand, with what this kernel's conntrack makes of each packet, and the model too.

The first part are those of the kernel's own tests (tools/testing/selftests/net/netfilter/packetdrill): what they assert
is asserted here. The second is where the model once was wrong.
"""

from __future__ import annotations

import json
from functools import cache

import pytest
import skips
from conntrack_oracle import Setting, in_a_namespace, kernel_rules
from packet_lines import by_kernel, by_model, read

pytestmark = [pytest.mark.kernel, pytest.mark.inside]

DEFAULT = Setting(loose=True, be_liberal=False, ignore_invalid_rst=False)
CLIENT, SERVER = 1000, 5000

base = cache(kernel_rules)


@pytest.fixture(autouse=True)
def may_make_namespaces() -> None:
    """Skips where this user can't make a network namespace."""
    skips.skip_unless_userns()
    skips.skip_unless_capability("raw-sockets")


def hold(text: str, client: int = CLIENT, server: int = SERVER, setting: Setting = DEFAULT) -> None:
    """Both make of the packets what the text says."""
    lines = read(text, client, server)
    assert by_model(lines, setting.rules(base())) == text.lstrip("\n")
    assert json.loads(in_a_namespace(lambda kernel: json.dumps(by_kernel(lines, kernel, setting)))) == text.lstrip("\n")


# --- the kernel's own ------------------------------------------------------------------------------------------------


def test_ack_loss_stall() -> None:
    """Data that was acknowledged long ago and comes again is let pass (conntrack_ack_loss_stall.pkt)."""
    skips.skip_unless_capability("forgives-late-segments")
    lines = [
        f"{'> S 0:0(0) win 32792 <mss 1000>':48} | new original, SYN_SENT",
        f"{'< S. 0:0(0) ack 1 win 65535 <mss 1460>':48} | established reply, SYN_RECV",
        f"{'> . 1:1(0) ack 1 win 65535':48} | established original, ESTABLISHED",
    ]
    for seq in range(1, 67_161, 1460):
        end = seq + 1460
        lines.append(f"{f'> P. {seq}:{end}(1460) ack 1 win 257':48} | established original, ESTABLISHED")
        lines.append(f"{f'< . 1:1(0) ack {end} win 65535':48} | established reply, ESTABLISHED")
    lines += [
        f"{'> P. 1:1461(1460) ack 1 win 257':48} | established original, ESTABLISHED",
        f"    SEQ is under lower bound {CLIENT + 67_161 - 65_535 - 1} (already ACKed data retransmitted)",
        f"{'< . 1:1(0) ack 67161 win 65535':48} | established reply, ESTABLISHED",
    ]
    hold("\n".join(lines) + "\n")


def test_inexact_rst() -> None:
    """A RST that isn't at the expected number closes an entry that is closing already (conntrack_inexact_rst.pkt)."""
    skips.skip_unless_capability("takes-any-rst-while-closing")
    hold("""
> S 0:0(0) win 65535 <sackOK, wscale 8>          | new original, SYN_SENT
< S. 0:0(0) ack 1 win 65535 <mss 1460>           | established reply, SYN_RECV
> . 1:1(0) ack 1 win 65535                       | established original, ESTABLISHED
< . 1:1001(1000) ack 1 win 65535                 | established reply, ESTABLISHED
< . 1001:2001(1000) ack 1 win 65535              | established reply, ESTABLISHED
< . 2001:3001(1000) ack 1 win 65535              | established reply, ESTABLISHED
> . 1:1(0) ack 1001 win 65535                    | established original, ESTABLISHED
> . 1:1(0) ack 2001 win 65535                    | established original, ESTABLISHED
> . 1:1(0) ack 3001 win 65535                    | established original, ESTABLISHED
> P. 1:1001(1000) ack 3001 win 65535             | established original, ESTABLISHED
< F. 3001:3001(0) ack 1001 win 65535             | established reply, FIN_WAIT
> . 1001:1001(0) ack 3002 win 65535              | established original, CLOSE_WAIT
> R. 1001:1001(0) ack 3002 win 65535             | established original, CLOSE
// The server has no socket any more.
< R 2001:2001(0) win 0                           | established reply, CLOSE
""")


def test_rst_invalid() -> None:
    """RSTs out of the window are INVALID, and the connection stays ESTABLISHED (conntrack_rst_invalid.pkt)."""
    hold("""
> S 0:0(0) win 65535 <sackOK, wscale 8>          | new original, SYN_SENT
< S. 0:0(0) ack 1 win 65535 <mss 1460>           | established reply, SYN_RECV
> . 1:1(0) ack 1 win 65535                       | established original, ESTABLISHED
< . 1:1001(1000) ack 1 win 65535                 | established reply, ESTABLISHED
< . 1001:2001(1000) ack 1 win 65535              | established reply, ESTABLISHED
< . 2001:3001(1000) ack 1 win 65535              | established reply, ESTABLISHED
> . 1:1(0) ack 1001 win 65535                    | established original, ESTABLISHED
> . 1:1(0) ack 2001 win 65535                    | established original, ESTABLISHED
> . 1:1(0) ack 3001 win 65535                    | established original, ESTABLISHED
< R 0:0(0) win 0                                 | invalid, ESTABLISHED
    invalid rst
< R 1000000:1000000(0) win 0                     | invalid, ESTABLISHED
    SEQ is over upper bound 73537 (over the window of the receiver)
< R 42:42(0) win 0                               | invalid, ESTABLISHED
    invalid rst
> P. 1:1001(1000) ack 3001 win 65535             | established original, ESTABLISHED
< . 3001:3001(0) ack 1001 win 65535              | established reply, ESTABLISHED
< R. 3000:3000(0) ack 1001 win 0                 | invalid, ESTABLISHED
    invalid rst
< R. 3001:3001(0) ack 1001 win 0                 | established reply, CLOSE
""")


def test_syn_challenge_ack() -> None:
    """A challenge ACK, the RST that answers it and the next SYN all pass (conntrack_syn_challenge_ack.pkt)."""
    skips.skip_unless_capability("passes-challenged-rst")
    hold("""
> S 0:0(0) win 65535 <sackOK, wscale 8>          | new original, SYN_SENT
< . 145824453:145824453(0) ack 643160523 win 240 | established reply, SYN_SENT
    packet (index 3) in dir 1 ignored, state SYN_SENT
> R 643160523:643160523(0) win 0                 | established original, CLOSE
> S 0:0(0) win 65535 <sackOK, wscale 8>          | new original, SYN_SENT
< S. 0:0(0) ack 1 win 250 <wscale 0>             | established reply, SYN_RECV
> . 1:1(0) ack 1 win 256                         | established original, ESTABLISHED
""")


def test_synack_old() -> None:
    """A SYN,ACK of an older connection is INVALID, and doesn't spoil the right one (conntrack_synack_old.pkt)."""
    hold("""
> S 0:0(0) win 65535 <sackOK, wscale 8>          | new original, SYN_SENT
< S. 145824453:145824453(0) ack 643160523 <wscale 0> | invalid, SYN_SENT
    ACK is over upper bound 1002 (ACKed data not seen yet)
> S 0:0(0) win 65535 <sackOK, wscale 8>          | new original, SYN_SENT
< S. 145758918:145758918(0) ack 1 win 250 <wscale 0> | established reply, SYN_RECV
> P. 1:2(1) ack 145758919 win 256                | established original, ESTABLISHED
""")


def test_synack_reuse() -> None:
    """A SYN to a connection that lives is let pass; the RST it leads to clears the way (conntrack_synack_reuse.pkt)."""
    hold("""
> S 0:0(0) win 32792 <wscale 7>                  | new original, SYN_SENT
< S. 0:0(0) ack 1 <wscale 8>                     | established reply, SYN_RECV
> . 1:1(0) ack 1 win 257                         | established original, ESTABLISHED
> P. 1:101(100) ack 1 win 257                    | established original, ESTABLISHED
< . 1:1(0) ack 101 win 256                       | established reply, ESTABLISHED
> S 2000:2000(0) win 32792 <wscale 7>            | established original, ESTABLISHED
    packet (index 0) in dir 0 ignored, state ESTABLISHED
// The challenge ACK, and the client's answer to it.
< . 1:1(0) ack 101 win 256                       | established reply, ESTABLISHED
> R. 101:101(0) ack 1 win 257                    | established original, CLOSE
> S 2000:2000(0) win 32792 <wscale 0>            | new original, SYN_SENT
< S. 500:500(0) ack 2001 <wscale 8>              | established reply, SYN_RECV
""")


# --- where the model was wrong ---------------------------------------------------------------------------------------


def test_a_syn_without_options_keeps_the_scale_of_the_one_before() -> None:
    hold(
        """
> S 100:100(0) <wscale 7>                        | new original, SYN_SENT
> S 5000:5000(0)                                 | new original, SYN_SENT
< S. 900:900(0) ack 5001 <wscale 7>              | established reply, SYN_RECV
> . 5001:5001(0) ack 901                         | established original, ESTABLISHED
< . 901:2301(1400) ack 5001                      | established reply, ESTABLISHED
< . 2301:3701(1400) ack 5001                     | established reply, ESTABLISHED
< . 3701:5101(1400) ack 5001                     | established reply, ESTABLISHED
""",
        0,
        0,
    )


def test_a_rst_in_the_same_direction_as_the_syn_that_was_ignored_is_checked() -> None:
    skips.skip_unless_capability("checks-rst-after-own-syn")
    hold(
        """
> S 100:100(0)                                   | new original, SYN_SENT
< S. 500:500(0) ack 101                          | established reply, SYN_RECV
> . 101:101(0) ack 501                           | established original, ESTABLISHED
> S 5000:5000(0)                                 | established original, ESTABLISHED
    packet (index 0) in dir 0 ignored, state ESTABLISHED
> R. 101:101(0) ack 5001 win 0                   | invalid, ESTABLISHED
    ACK is over upper bound 502 (ACKed data not seen yet)
""",
        0,
        0,
    )


def test_a_window_scale_of_another_length_is_none() -> None:
    hold("""
> S 0:0(0) <0x03040506>                          | new original, SYN_SENT
< S. 0:0(0) ack 1 <wscale 7>                     | established reply, SYN_RECV
> . 1:1(0) ack 1 win 10                          | established original, ESTABLISHED
< . 1:1001(1000) ack 1                           | established reply, ESTABLISHED
< . 1002:3001(1999) ack 1                        | invalid, ESTABLISHED
    SEQ is over upper bound 5012 (over the window of the receiver)
""")


@pytest.mark.parametrize("words", [0, 4, 15])
def test_a_data_offset_that_cannot_be_is_a_truncated_packet(words: int) -> None:
    odd = f"> . 1:1(0) ack 1 doff {words}"
    hold(f"""
> S 0:0(0)                                       | new original, SYN_SENT
< S. 0:0(0) ack 1                                | established reply, SYN_RECV
{odd:48} | invalid, SYN_RECV
    truncated packet
""")


def test_both_ends_may_open_at_the_same_time() -> None:
    hold("""
> S 0:0(0) <wscale 7>                            | new original, SYN_SENT
< S 0:0(0) <wscale 7>                            | established reply, SYN_SENT2
> S. 0:0(0) ack 1 <wscale 7>                     | established original, SYN_RECV
< S. 0:0(0) ack 1 <wscale 7>                     | established reply, SYN_RECV
    packet (index 1) in dir 1 ignored, state SYN_RECV
< . 1:1(0) ack 1                                 | established reply, ESTABLISHED
> . 1:1(0) ack 1                                 | established original, ESTABLISHED
""")


def test_numbers_half_the_space_apart_are_each_before_the_other() -> None:
    """An end 2**31 past the last one counts as later; one that is a byte further doesn't."""
    half = 1 << 31
    hold(
        f"""
{f"> S {half}:{half}(0)":48} | new original, SYN_SENT
{"> S 0:0(0)":48} | new original, SYN_SENT
{"< S. 0:0(0) ack 1":48} | established reply, SYN_RECV
""",
        0,
        7,
    )
