"""The attributes that every interface has: in `ip link`'s words, and by their numbers in rtnetlink. Pure.

Numbers are those of include/uapi/linux/if_link.h.
"""

from __future__ import annotations

import shlex

from netlab.model import LinkAttributes

_IFLA_ADDRESS, _IFLA_MTU, _IFLA_TXQLEN = 1, 4, 13
_IFLA_IFALIAS, _IFLA_GROUP = 20, 27
_IFLA_NUM_TX_QUEUES, _IFLA_NUM_RX_QUEUES = 31, 32
_IFLA_GSO_MAX_SEGS, _IFLA_GSO_MAX_SIZE, _IFLA_GRO_MAX_SIZE = 40, 41, 58


def words(attributes: LinkAttributes, *, queues: bool = False) -> str:
    """What `ip link add` is told of them, a blank before each word; queues: with the numbers of queues even where that
    is 1, which some kinds of link have more of by themselves."""
    numbers = {"numtxqueues": attributes.num_tx_queues, "numrxqueues": attributes.num_rx_queues}
    more = {word: number for word, number in numbers.items() if queues or number != 1}
    return _words(attributes) + "".join(f" {word} {number}" for word, number in more.items())


def _words(attributes: LinkAttributes) -> str:
    numbers = {
        "address": attributes.mac,
        "mtu": attributes.mtu,
        "txqueuelen": attributes.txqlen,
        "gso_max_segs": attributes.gso_max_segs,
        "gso_max_size": attributes.gso_max_size,
        "gro_max_size": attributes.gro_max_size,
        "group": attributes.group,
    }
    return "".join(f" {word} {value}" for word, value in numbers.items() if value is not None)


def words_of_change(attributes: LinkAttributes) -> str:
    """What `ip link set` is told of them; a link's queues can't be changed."""
    alias = "" if attributes.alias is None else f" alias {shlex.quote(attributes.alias)}"
    return _words(attributes) + alias


def numbered(attributes: LinkAttributes, *, queues: bool = False) -> list[tuple[int, int | bytes]]:
    """What RTM_NEWLINK is told of a new link, each attribute by its number; an int is a u32. queues as above."""
    numbers = ((_IFLA_NUM_TX_QUEUES, attributes.num_tx_queues), (_IFLA_NUM_RX_QUEUES, attributes.num_rx_queues))
    return [*_numbered(attributes), *((n, count) for n, count in numbers if queues or count != 1)]


def _numbered(attributes: LinkAttributes) -> list[tuple[int, int | bytes]]:
    found: list[tuple[int, int | bytes]] = []
    if attributes.mac is not None:
        found.append((_IFLA_ADDRESS, bytes.fromhex(attributes.mac.replace(":", ""))))
    numbers = (
        (_IFLA_MTU, attributes.mtu),
        (_IFLA_TXQLEN, attributes.txqlen),
        (_IFLA_GSO_MAX_SEGS, attributes.gso_max_segs),
        (_IFLA_GSO_MAX_SIZE, attributes.gso_max_size),
        (_IFLA_GRO_MAX_SIZE, attributes.gro_max_size),
        (_IFLA_GROUP, attributes.group),
    )
    found += [(number, value) for number, value in numbers if value is not None]
    return found


def numbered_of_change(attributes: LinkAttributes) -> list[tuple[int, int | bytes]]:
    """What RTM_NEWLINK is told of a link that is there: the kernel takes no alias with a new one."""
    found = _numbered(attributes)
    if attributes.alias is not None:
        found.append((_IFLA_IFALIAS, attributes.alias.encode()))
    return found
