"""All that a command could have left on its machine, and all of a lab that a network user can see, as lines of text."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from netlab.linux.syscalls import CLONE_NEWNET, CLONE_NEWUSER, setns

_WORK = "/run/faults"


def machine(*, sysctls: bool = False, exact: bool = True) -> list[str]:
    """The sandbox now: its processes, mounts, files in /run, network; a line a thing.

    exact: with the numbers of processes and files, which are others each time a lab is built.
    """
    lines = [*_processes(exact), *_mounts(exact), *_files(Path("/run"), exact), *_network()]
    if sysctls:
        lines += _sysctls()
    return sorted(lines)


def _processes(exact: bool) -> Iterator[str]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and entry.name != "1":
            with suppress(OSError):
                stat = Path(entry.path, "stat").read_text(errors="replace")
                fields = stat[stat.rindex(")") + 2 :].split()
                if fields[0] not in "ZX":
                    argv = Path(entry.path, "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
                    yield f"process {entry.name} since {fields[19]}: {argv}" if exact else f"process {argv}"


def _mounts(exact: bool) -> Iterator[str]:
    """All but those that the sandbox's own /run hides: these are the host's, and come and go there."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    seen = {fields[0] for fields in mounts if fields[4] == "/run"}
    for fields in mounts:
        if fields[1] in seen or not fields[4].startswith("/run/"):
            if fields[4] != "/" and fields[1] in seen:
                seen.add(fields[0])
            rest = fields[fields.index("-") + 1 :]
            shared = " ".join(word.partition(":")[0] for word in fields[6 : fields.index("-")])
            what = fields[3] if exact or rest[0] != "nsfs" else "a namespace"
            yield f"mount {fields[4]} of {what} {rest[0]} {rest[1]} {shared}"


def _files(directory: Path, exact: bool) -> Iterator[str]:
    """Every file with its number and mode, and what the small ones say."""
    with suppress(OSError):
        for entry in os.scandir(directory):
            if entry.path.startswith(f"{_WORK}/"):
                continue
            if entry.name in ("rest.json", "spec.kept") and not exact:  # kept of a lab once it has been looked at
                continue
            with suppress(OSError):
                stat = entry.stat(follow_symlinks=False)
                more = f" {stat.st_ino} {_content(entry, stat.st_size)}" if exact else ""
                yield f"file {entry.path} {stat.st_mode:o}{more}"
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path), exact)


def _content(entry: os.DirEntry[str], size: int) -> str:
    if entry.is_symlink():
        return f"-> {Path(entry.path).readlink()}"
    if entry.is_file() and size < 4096:
        with suppress(OSError):
            return repr(Path(entry.path).read_bytes()[:200])
    return ""


def _network() -> Iterator[str]:
    """Links, addresses, routes and rules of the namespace that this process is in."""
    for table in ("dev", "fib_trie", "if_inet6", "ipv6_route"):
        with suppress(OSError):
            for line in Path(f"/proc/self/net/{table}").read_text().splitlines():
                yield f"{table} {line.partition(':')[0] if table == 'dev' else line}"
    if os.geteuid() == 0:
        yield from (f"rule {line}" for line in rules().splitlines())


def rules() -> str:
    """`nft -s list ruleset`, here."""
    import nftables

    nft = nftables.Nftables()
    nft.set_stateless_output(True)
    code, output, _ = nft.cmd("list ruleset")
    return str(output) if code == 0 else ""


def _sysctls() -> Iterator[str]:
    for directory, _, files in os.walk("/proc/sys/net"):
        for file in files:
            if file not in ("nf_conntrack_count", "stable_secret"):
                with suppress(OSError):
                    yield f"sysctl {directory}/{file} = {Path(directory, file).read_text(errors='replace').strip()}"


# --- a lab -----------------------------------------------------------------------------------------------------------


def lab(holder: int, names: dict[str, str]) -> list[str]:
    """What is in a lab's namespaces; names says where each stands, as the holder's mount namespace has it.

    Read without netlab's own readers, by a child. Without what may differ from one building to the next: numbers, and
    MAC addresses that nobody chose.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with os.fdopen(write, "w") as answer:
                json.dump(_lab(holder, names), answer)
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    lines: list[str] = json.loads(text) if text else ["the lab can't be read"]
    return lines


def _lab(holder: int, names: dict[str, str]) -> list[str]:
    there = _enter(holder)
    lines: list[str] = []
    for name, place in sorted(names.items()):
        try:
            fd = os.open(place.lstrip("/"), os.O_RDONLY, dir_fd=there)
            setns(fd, CLONE_NEWNET)
        except OSError as error:
            lines.append(f"{name}: {error.strerror}")
            continue
        lines += [f"{name}: {line}" for line in sorted(_inside())]
        os.close(fd)
    return lines


def move_in(holder: int, place: str) -> None:
    """Move this process, which must be a child, into a lab's network namespace; OSError."""
    setns(os.open(place.lstrip("/"), os.O_RDONLY, dir_fd=_enter(holder)), CLONE_NEWNET)


def _enter(holder: int) -> int:
    """Enter a lab's user namespace, if it has one; its root directory."""
    user, root = os.open(f"/proc/{holder}/ns/user", os.O_RDONLY), os.open(f"/proc/{holder}/root", os.O_PATH)
    if os.fstat(user).st_ino != Path("/proc/self/ns/user").stat().st_ino:
        setns(user, CLONE_NEWUSER)
    return root


def _inside() -> Iterator[str]:
    said = subprocess.run(["ip", "-j", "-d", "addr"], capture_output=True, text=True, check=True).stdout
    links = json.loads(said)
    for link in links:
        yield f"link {_link(link)}"
        for address in link["addr_info"]:
            if address["local"].startswith("fe80:"):
                continue
            yield f"address {link['ifname']} {address['local']}/{address['prefixlen']} {address.get('noprefixroute')}"
    for family in ("-4", "-6"):
        said = subprocess.run(["ip", family, "route", "show", "table", "all"], capture_output=True, text=True).stdout
        for line in said.splitlines():
            if "fe80:" not in line and "ff00::" not in line:
                yield f"route {family} {line.replace(' linkdown', '').strip()}"
    for line in rules().splitlines():
        yield f"rule {line}"
    for key in ("net/ipv4/ip_forward", "net/ipv4/tcp_rmem", "net/netfilter/nf_conntrack_tcp_be_liberal"):
        with suppress(OSError):
            yield f"sysctl {key} = {Path('/proc/sys', key).read_text().strip()}"


def _link(link: dict[str, Any]) -> str:
    kind = link.get("linkinfo", {}).get("info_kind", "")
    up = "up" if "UP" in link["flags"] else "down"
    return f"{link['ifname']} {kind} {up} mtu {link['mtu']} master {link.get('master')} {link.get('qdisc')}"
