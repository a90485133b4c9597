"""When a lab stands."""

from __future__ import annotations

import os

from states import FULL

from netlab.lab.holder import start_ticks
from netlab.lab.standing import boot_id, is_standing
from netlab.lab.state import Holder


def test_standing_is_complete_in_this_boot_with_its_holder_alive() -> None:
    ticks = start_ticks(os.getpid())
    assert ticks is not None
    standing = FULL._replace(boot_id=boot_id(), holder=Holder(os.getpid(), ticks))
    assert is_standing(standing)
    assert not is_standing(standing._replace(complete=False))
    assert not is_standing(standing._replace(boot_id="another"))
    assert not is_standing(standing._replace(holder=None))
    assert not is_standing(standing._replace(holder=Holder(os.getpid(), ticks - 1)))
