"""States of labs that never were, for tests of what is done with one."""

from __future__ import annotations

import os
from pathlib import Path

from netlab.lab import mark
from netlab.lab.directory import LabDirectory
from netlab.lab.rundir import made
from netlab.lab.state import Holder, LabState, StartedProgram

FULL = LabState(
    lab="lab",
    boot_id="3f2c",
    rootless=True,
    file="/tmp/topology.yaml",
    settings=(("vars.window", "4096"), ("ipv6", "true")),
    fixes=("drop-invalid",),
    holder=Holder(77, 1234),
    namespaces=(("client", 4026531840), ("server", 4026531841)),
    programs=(StartedProgram("server", "web", 5, 99),),
    former=(("client", "net.ipv4.conf.eth0/7.rp_filter", "2"),),
    complete=True,
)
BARE = LabState(lab="lab", boot_id="", rootless=False, file=None)


def lab_directory(root: Path, lab: str) -> LabDirectory:
    """The directory of a lab, made, and holding no more than its mark."""
    directory = LabDirectory(root, lab)
    with made(root):
        os.close(mark.make(directory.path))
    return directory
