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
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until there is something to take back, Ctrl-C just ends it
    gc.set_threshold(100_000)
    for stream, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, stream) is None:  # closed: the next file or socket would get its number
            setattr(sys, stream, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    from netlab import cli

    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
