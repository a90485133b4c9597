"""The programs of iptables, run in the calling thread's network namespace: giving rules, asking what stands.

What is given and how the answer is read is `kubeproxy/iptables_save.py`'s.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence

from netlab import advice
from netlab.errors import LabError, UnsupportedError
from netlab.escapes import Lines
from netlab.kubeproxy import Family
from netlab.kubeproxy.iptables_save import PROGRAMS, without_counters
from netlab.lab.exec import search_path


def restore(family: Family, text: str, *, beside: bool = False) -> None:
    """Equivalent to `iptables-restore` (ip6tables-restore) with that text; LabError with its words where it refuses,
    UnsupportedError for more than this user may send at once.

    beside: with `--noflush`, what the text doesn't speak of stays.
    """
    _run([f"{PROGRAMS[family]}-restore", *(["--noflush"] if beside else [])], text)


def saved(family: Family, tables: Iterable[str]) -> str:
    """What `iptables-save -t TABLE` says of each, without counters; LabError. Nothing of a table that isn't there.

    Each is asked for by its name: who is root in a user namespace only may not read which tables there are
    (/proc/net/ip_tables_names).
    """
    return "".join(without_counters(_run([f"{PROGRAMS[family]}-save", "-t", table])) for table in tables)


def _run(argv: Sequence[str], text: str = "") -> str:
    import shutil
    import subprocess

    program = shutil.which(argv[0], path=search_path(os.environ.get("PATH")))
    if program is None:
        hint = f"{advice.install('iptables')}, or load_with: libnftables under kube_proxy"
        raise UnsupportedError(f"there is no program {argv[0]}", hint)
    # iptables-legacy locks a file of the host's, /run/xtables.lock, against others that change the same tables. Who is
    # root in a user namespace only may not open it, and nobody else changes a lab's.
    lock = os.memfd_create("xtables.lock")
    try:
        environment = {**os.environ, "XTABLES_LOCKFILE": f"/proc/self/fd/{lock}"}
        done = subprocess.run(
            [program, *argv[1:]],
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            env=environment,
            pass_fds=(lock,),
        )
    finally:
        os.close(lock)
    if done.returncode:
        if os.strerror(errno.EMSGSIZE) in done.stderr:  # root's goes over the limit of a socket's buffer
            raise UnsupportedError(
                f"{argv[0]} has more rules than an ordinary user may send at once",
                "load_with: libnftables under kube_proxy loads them in parts; or `sudo netlab up --root`",
            )
        raise LabError(Lines(f"{argv[0]} refused: {done.stderr.strip() or f'exit code {done.returncode}'}"))
    return done.stdout
