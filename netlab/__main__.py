"""`netlab` and `python -m netlab`: a start and an end that cost little, around `cli/`.

A tenth of a short command's time is the garbage collector walking over freshly imported modules, and another the
interpreter taking itself apart at the end. The kernel frees what a process had, so neither is needed.
"""

import gc
import os
import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    if sys.platform != "linux":
        sys.exit(
            "netlab: a lab is made of Linux namespaces; this is not Linux\n  hint: use a virtual machine with Linux"
        )
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until there is something to take back, Ctrl-C just ends it
    gc.set_threshold(100_000)
    from netlab import cli, terminal

    terminal.open_streams()

    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    os._exit(code)


if __name__ == "__main__":
    main()
