"""What a run depends on beside its topology, read from the kernel: its version and configuration, each namespace's
sysctls, the rules as they are. A bundle keeps it.
"""

from __future__ import annotations

import gzip
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from netlab.lab.netns import Namespaces
from netlab.linux import nft
from netlab.record.environment import Environment

_SYSCTLS = Path("/proc/sys/net")
_SECRETS = frozenset(("stable_secret", "tcp_fastopen_key"))
"""Sysctls that are keys."""


def collect(namespaces: Namespaces, names: Sequence[str]) -> Environment:
    """The environment of a lab that is up, and of this machine; what can't be read is left out."""
    sysctls, rules = {}, {}
    for name in names:
        with namespaces.inside(name):
            sysctls[name] = dict(sorted(_sysctls()))
            with suppress(OSError):
                rules[name] = nft.run("list ruleset")
    return Environment(kernel=_kernel(), sysctls=sysctls, rules=rules)


def _sysctls() -> Iterator[tuple[str, str]]:
    """The readable ones of the calling thread's network namespace. Equivalent to `sysctl -a --pattern ^net`."""
    for directory, _, files in os.walk(_SYSCTLS):
        for file in files:
            if file not in _SECRETS:
                path = Path(directory, file)
                # As sysctl(8) writes it: a dot within a name (eth0.5) stands as a slash.
                key = ".".join(part.replace(".", "/") for part in path.parts[3:])
                with suppress(OSError, UnicodeDecodeError):
                    yield key, path.read_text().strip()


def _kernel() -> dict[str, Any]:
    system = os.uname()
    source, config = _config(system.release)
    return {
        "sysname": system.sysname,
        "release": system.release,
        "version": system.version,
        "machine": system.machine,
        "modules": sorted(_modules()),
        "clocksource": _line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "cpus": os.cpu_count(),
        "netlab": _own_version(),
        "python": platform.python_version(),
        "config_from": source,
        "config": config,
    }


def _config(release: str) -> tuple[str | None, dict[str, str] | None]:
    """The options the kernel was built with, and the file that says so."""
    for file in ("/proc/config.gz", f"/boot/config-{release}", f"/lib/modules/{release}/config"):
        with suppress(OSError, EOFError, UnicodeDecodeError):
            data = Path(file).read_bytes()
            text = (gzip.decompress(data) if file.endswith(".gz") else data).decode()
            lines = [line for line in text.splitlines() if line.startswith("CONFIG_") and "=" in line]
            return file, dict(line.split("=", 1) for line in lines)
    return None, None


def _modules() -> list[str]:
    with suppress(OSError):
        return [line.split()[0] for line in Path("/proc/modules").read_text().splitlines()]
    return []


def _line(file: str) -> str | None:
    with suppress(OSError):
        return Path(file).read_text().strip()
    return None


def _own_version() -> str | None:
    try:
        return version("netns-lab")
    except PackageNotFoundError:
        return None
