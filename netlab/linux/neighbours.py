"""What a namespace knows of its neighbours' MAC addresses (ARP and neighbour discovery), and how it forgets them."""

from __future__ import annotations

import errno
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, ip_address

_NUD_NOARP, _NUD_PERMANENT = 0x40, 0x80  # include/uapi/linux/neighbour.h


def forget(addresses: Collection[IPv4Address | IPv6Address]) -> None:
    """Delete the entries of these addresses in the calling thread's network namespace, but those that somebody has made
    for good. Equivalent to `ip neigh flush to ADDRESS` for each; OSError.
    """
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as ipr:
        for entry in ipr.get_neighbours():
            address = entry.get_attr("NDA_DST")
            if (
                address is None
                or entry["state"] & (_NUD_NOARP | _NUD_PERMANENT)
                or ip_address(address) not in addresses
            ):
                continue
            try:
                ipr.neigh("del", family=entry["family"], dst=address, ifindex=entry["ifindex"])
            except NetlinkError as error:
                if error.code != errno.ENOENT:  # the kernel was quicker
                    raise OSError(error.code, str(error)) from None
