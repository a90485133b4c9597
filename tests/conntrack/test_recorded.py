"""The model held against a kernel's answers that were written down: conversations that go to every edge there is.

They come from `scripts/oracle --record`, which asks the kernel it runs on. What is recorded needs no kernel to be asked
again: verdict, log line, and the whole entry after each packet.
"""

from __future__ import annotations

import pytest
from conntrack_oracle import SETTINGS
from packet_lines import by_model, read
from places import DATA

from netlab.conntrack.kernels import Rules

HEAD, *BLOCKS = (DATA / "conntrack-6.18.txt").read_text().split("\n\n")


@pytest.mark.parametrize("block", BLOCKS, ids=[f"{number}" for number, _ in enumerate(BLOCKS, 1)])
def test_the_model_says_what_the_kernel_did(block: str) -> None:
    title, _, packets = block.partition("\n")
    (setting,) = (each for each in SETTINGS if title == f"// {each}")
    assert by_model(read(packets), setting.rules(Rules()), whole=True) == packets.rstrip("\n") + "\n"
