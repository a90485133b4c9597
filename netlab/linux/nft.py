"""nftables, through libnftables: it takes nft's own words and answers in them.

Everything here acts in the calling thread's network namespace, and raises OSError: EINVAL with nft's complaint, ENOPKG
where the library's Python binding is missing.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from netlab.linux import interrupts

if TYPE_CHECKING:
    from nftables import Nftables


def context() -> Nftables:
    """A libnftables context; it must be made and used inside the namespace that it is to speak of.

    Signals must be held back until it is gone: what they raise in its __del__ is lost.
    """
    try:
        from nftables import Nftables
    except ImportError:
        words = "its Python binding is missing: sudo apt-get install python3-nftables, then scripts/setup"
        raise OSError(errno.ENOPKG, words, "libnftables") from None
    return Nftables()


@interrupts.held_back()
def run(commands: str) -> str:
    """What nft prints for these commands. Equivalent to `nft -f -`."""
    return _run(context(), commands)


@interrupts.held_back()
def ruleset_with_handles() -> str:
    """Equivalent to `nft -s -a list ruleset`."""
    listing = context()
    listing.set_handle_output(True)
    listing.set_stateless_output(True)
    return _run(listing, "list ruleset")


def _run(libnftables: Nftables, commands: str) -> str:
    code, output, complaint = libnftables.cmd(commands)
    if code:
        raise OSError(errno.EINVAL, complaint.strip(), "nft")
    return str(output)


@interrupts.held_back()
def list_tables(tables: Iterable[tuple[str, str]]) -> str:
    """The (family, name) tables that exist, without counters and handles.

    Equivalent to `nft -s list table FAMILY NAME` for each, sorted; what packets have put into sets is left out.
    """
    listing = context()
    listing.set_stateless_output(True)
    texts = []
    for family, name in sorted(tables):
        code, output, _ = listing.cmd(f"list table {family} {name}")
        if code == 0:
            texts.append(re.sub(_DYNAMIC_ELEMENTS, r"\1", str(output)))
    return "".join(texts)


_DYNAMIC_ELEMENTS = (
    r"(?m)(^\t(?:set|map) [^\n]* \{\n(?:\t\t[^\n]*\n)*?\t\tflags [^\n]*\bdynamic\b[^\n]*\n(?:\t\t[^\n]*\n)*?)"
    r"\t\telements = \{[^}]*\}\n"
)
"""The elements of a set or map with `flags dynamic`, and what stands before them there."""
