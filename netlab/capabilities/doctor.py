"""What this kernel and this user can do, found out by doing it: `netlab doctor`.

Every check of the kernel runs in a forked child, in namespaces that end with it, so that nothing is left and nothing of
the host's is touched. What experiments can ask for comes from `capabilities/`. Whatever else a lab may need, building a
small one shows. A Check is a value; rendering is pure. Nothing here repairs a lab.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from netlab import advice, escapes
from netlab.capabilities.capability import CAPABILITIES, Capability
from netlab.capabilities.probes import probe
from netlab.capabilities.scratch import attempt
from netlab.errors import LabError, NetlabError
from netlab.lab.directory import LabDirectory
from netlab.lab.exec import search_path
from netlab.lab.holder import become_rootless
from netlab.lab.rundir import labs, run_directory
from netlab.lab.standing import is_standing
from netlab.linux import interrupts, libnftables, nflog, nft
from netlab.linux.syscalls import CLONE_NEWNET, CLONE_NEWPID, unshare
from netlab.style import Piece, Style

FLAGSHIP_NEEDS = ("tcp-repair", "raw-sockets")
"""The capabilities without which the flagship can't run; others are needed by what names them."""

PACKAGES = {"pyroute2": "0.9.4", "pyyaml": "6.0"}
"""The Python packages without which no lab can be built, and the least version of each, as in pyproject.toml."""

# One of each thing that kube-proxy's rules need; loaded into a namespace that ends with the probe.
NAT_RULES = """
table ip probe {
  chain prerouting {
    type nat hook prerouting priority dstnat;
    ip daddr 192.168.0.2 tcp dport 80 numgen random mod 2 0 dnat to 10.0.1.2:80
  }
  chain postrouting {
    type nat hook postrouting priority srcnat;
    meta mark & 0x4000 == 0x4000 masquerade fully-random
  }
  chain forward {
    type filter hook forward priority filter;
    ct state invalid drop
    reject
  }
}
"""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. ok is False where netlab can't work without it, None where it can and something is amiss.

    detail says what was found, advice what to do about it; advice is empty where there is nothing to do.
    """

    name: str
    ok: bool | None
    detail: str
    advice: str = ""


def checks() -> list[Check]:
    """Look at everything, in the order in which one thing needs another. Takes about a second.

    Where there are no files to try the kernel with, or no namespaces to try it in, nothing more is tried of it: all
    would fail for that one reason.
    """
    found = [kernel(), user()]
    for look in (files, user_namespaces, namespaces):
        if all(check.ok is not False for check in found):
            found.append(look())
    found += [*(python_package(name, least) for name, least in PACKAGES.items()), nftables_binding()]
    if all(check.ok is not False for check in found):
        found += [links(), nat(), conntrack_events(), invalid_reasons(), lab()]
        found += map(_capability, probe(CAPABILITIES).values())
    found += [program("ip", "iproute2"), program("nft", "nftables"), command()]
    return found if advice.missing() else [*found, leftovers()]


def exit_code(found: Sequence[Check]) -> int:
    """0 where a lab can be built and the flagship run, 77 where not."""
    return 77 if any(check.ok is False for check in found) else 0


_WORDS = {
    True: Piece("ok  ", Style.GOOD),
    False: Piece("FAIL", Style.BAD),
    None: Piece("note", Style.UNSURE),
}


def pieces(found: Sequence[Check], width: int | None = None) -> Iterator[Piece]:
    """The checks as a table for people, its last line the conclusion; in lines of so many columns, or of any number."""
    names = max(len(check.name) for check in found)
    room = None if width is None else max(width - len("FAIL") - names - 4, 20)
    for check in found:
        yield _WORDS[check.ok]
        head = check.name
        for text in (check.detail, check.advice):
            for line in [text] if room is None else _unbroken(text, room):
                yield Piece(f"{'' if head else '    '}  {head:{names}}  {line}\n" if line else "")
                head = ""
    can = exit_code(found) == 0
    yield Piece("netlab can build labs here.\n" if can else "netlab can't build labs here: see FAIL above.\n")


def _unbroken(text: str, room: int) -> list[str]:
    """In lines: a path or a sysctl that is longer stays whole, so that it can be copied."""
    return textwrap.wrap(text, room, break_on_hyphens=False, break_long_words=False)


def render_json(found: Sequence[Check]) -> str:
    """{"usable": bool, "checks": [{"name", "ok", "detail", "advice"}, …]} as text."""
    return escapes.as_json({"usable": exit_code(found) == 0, "checks": [asdict(check) for check in found]})


# --- who and what ---------------------------------------------------------------------------------------------------


def kernel() -> Check:
    """Which kernel this is; nothing is concluded from its version."""
    return Check("kernel", True, f"{platform.system()} {platform.release()}")


def user() -> Check:
    """Which kind of lab this user gets, and whether root is as mighty as that needs."""
    if os.geteuid() != 0:
        return Check("user", True, f"uid {os.geteuid()}: labs are rootless, each in a user namespace of its own")
    if (lacking := advice.lacking()) is not None:
        return Check("user", False, *lacking)
    return Check("user", True, "root: namespaces get names that `ip netns` shows")


def files() -> Check:
    """The files that whatever is tried needs."""
    if (missing := advice.missing()) is not None:
        return Check("files", False, *missing)
    return Check("files", True, "/proc and /dev are mounted")


def program(name: str, package: str) -> Check:
    """Whether a program that labs do not need, but people do, is there; else Debian's package that has it."""
    path = shutil.which(name, path=search_path(os.environ.get("PATH")))
    if path is None:
        detail = "not installed; netlab doesn't need it"
        return Check(f"program {name}", None, detail, advice.install(package))
    return Check(f"program {name}", True, f"{path}; netlab doesn't need it")


def command() -> Check:
    """Whether the `netlab` that a shell finds is this one: others on PyPI install a command of that name."""
    ours = Path(sys.executable).with_name("netlab")
    found = shutil.which("netlab")
    if found is None:
        return Check("command", None, "no netlab on PATH", f"call {ours}, or put its directory on PATH")
    if Path(found).resolve() != ours.resolve():
        detail = f"{found} comes first on PATH and is another netlab"
        return Check("command", None, detail, f"call {ours}, or put its directory first on PATH")
    return Check("command", True, found)


def leftovers() -> Check:
    """Labs that are written down and do not stand: killed on the way up or down, or older than this boot."""
    root = run_directory()
    there = labs(root)
    broken = []
    for lab in there:
        with suppress(LabError):
            state = LabDirectory(root, lab).read()
            if state is not None and is_standing(state):
                continue
        broken.append(lab)
    if broken:
        advice = "; ".join(f"netlab down {lab}" for lab in broken)
        return Check("leftovers", None, f"these labs are not whole: {', '.join(broken)}", advice)
    return Check("leftovers", True, f"none; labs that are up: {len(there)}")


def python_package(name: str, least: str) -> Check:
    """A package of the index, by its version, and the least that netlab needs."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version(name)
    except PackageNotFoundError:
        return Check(name, False, "not installed", advice.install_python(name))
    if _numbers(found) < _numbers(least):
        return Check(name, False, f"{found}; netlab needs {least}", advice.install_python(name))
    return Check(name, True, found)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def nftables_binding() -> Check:
    """libnftables, and through which module it is called."""
    make = libnftables.binding()
    try:
        make()
    except OSError as error:
        return Check("libnftables binding", False, str(error), advice.install("libnftables1"))
    if make is libnftables.Library:
        return Check("libnftables binding", True, "netlab's own; there is no module nftables")
    return Check("libnftables binding", True, str(sys.modules[make.__module__].__file__))


# --- what the kernel does when asked --------------------------------------------------------------------------------


def user_namespaces() -> Check:
    """Whether this user can make a user namespace. Root's labs need none."""

    def body() -> str:
        become_rootless()
        return "this user can make them"

    found = _try("user namespaces", attempt(body, enter=False))
    if os.geteuid() == 0 and not found.ok:
        return Check(found.name, None, found.detail, "root's labs need none, unless made with --rootless")
    return found


def namespaces() -> Check:
    """Network, mount and PID namespaces: what a lab is made of."""

    def body() -> str:
        unshare(CLONE_NEWPID | CLONE_NEWNET)
        return "network, mount and PID"

    found = _try("namespaces", attempt(body))
    return found if found.ok else replace(found, advice=found.advice or advice.namespaces() or "")


def links() -> Check:
    """A veth pair with one end on a bridge."""

    def body() -> str:
        from pyroute2 import IPRoute

        with IPRoute() as ip:
            ip.link("add", ifname="br0", kind="bridge")
            ip.link("add", ifname="v0", kind="veth", peer={"ifname": "v1"})
            bridge, veth = (ip.link_lookup(ifname=ifname)[0] for ifname in ("br0", "v0"))
            ip.link("set", index=veth, master=bridge, state="up")
        return "veth, bridge"

    return _try("links", attempt(body))


def nat() -> Check:
    """nf_tables with the kinds of rules that kube-proxy installs."""

    def body() -> str:
        try:
            nft.run(NAT_RULES)
        except OSError as error:
            raise NetlabError(error.strerror or str(error)) from error
        return "nf_tables with DNAT, masquerade, reject and conntrack state"

    return _try("kube-proxy rules", attempt(body))


def conntrack_events() -> Check:
    """ctnetlink: a socket that is told of conntrack's entries."""

    def body() -> str:
        from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket

        with NFCTSocket() as conntrack:
            list(conntrack.dump())
        return "ctnetlink lists conntrack's entries"

    return _try("conntrack", attempt(body))


def invalid_reasons() -> Check:
    """conntrack's own reason why a packet is INVALID, told to NFLOG group 0."""

    def body() -> str:
        nflog.listen(nflog.KERNELS_GROUP, copy_bytes=0, receive_buffer_bytes=4096).close()
        # The logger can only be named once its module is there, which the binding has loaded.
        sysctls = Path("/proc/sys/net/netfilter")
        (sysctls / "nf_log/2").write_text("nfnetlink_log")
        (sysctls / "nf_conntrack_log_invalid").write_text("6")
        return "conntrack tells NFLOG why a packet is INVALID"

    return _try("NFLOG", attempt(body))


def lab() -> Check:
    """A lab of two namespaces, as `up` builds it and `down` takes it down."""

    def body() -> str:
        from netlab.lab import lifecycle, standing
        from netlab.lab.spec import load

        name = f"doctor-{os.getpid()}"
        directory = LabDirectory(run_directory(), name)
        spec = load("namespaces: {a: {}, b: {}}\nlinks: [{ends: [a, b]}]", None, (), (), name)
        lifecycle.up(directory, spec, rootless=None)
        if left := standing.down(directory):
            raise NetlabError("; ".join(left))
        return "one with two namespaces was built and taken down"

    with interrupts.held_back():  # a lab that is built is taken down
        return _try("a lab", attempt(body, enter=False, held_back=True))


def _capability(found: Capability) -> Check:
    if found.there or found.name in FLAGSHIP_NEEDS:
        return Check(found.name, found.there, found.reason)
    return Check(found.name, None, found.reason)


def _try(name: str, outcome: str | NetlabError) -> Check:
    if isinstance(outcome, NetlabError):
        return Check(name, False, outcome.message, outcome.hint or "")
    return Check(name, True, outcome)
