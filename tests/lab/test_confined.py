"""What a program that a file names gets and may do; a command on the caller's own line is the caller's."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import labs
import pytest
import skips
from command import Netlab
from terminals import terminal

from netlab.model import CAPABILITIES

pytestmark = [pytest.mark.kernel, pytest.mark.identity]

SECRET = {"AWS_SECRET_ACCESS_KEY": "of-the-caller", "LANG": "C.UTF-8", "LC_TIME": "C"}
"""Variables of the caller's: one that a program of a file must not see, and two that it gets."""

GIVEN = {"PATH", "LD_LIBRARY_PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR"}
OF_A_SHELL = {"PWD", "OLDPWD", "SHLVL", "_"}


def with_program(netlab: Netlab, name: str, directory: Path, privilege: str, script: str, more: str = "") -> labs.Lab:
    """A lab, not up yet, whose one program is a shell script that stays."""
    command = json.dumps(["sh", "-c", f"{script}; echo all done; exec sleep 1000"])
    program = f"{{name: it, command: {command}, ready: {{output: all done}}{more}}}"
    return labs.make(
        netlab,
        name,
        directory,
        privilege,
        f"namespaces:\n  server:\n    programs:\n      - {program}\n  client: {{}}\n",
    )


def printed(lab: labs.Lab, env: dict[str, str] | None = None) -> list[str]:
    """What the program of a lab that is built now has printed, but for its last line."""
    done = lab.netlab("up", lab.file, "--name", lab.name, lab.privilege, env=env)
    assert done.returncode == 0, done.stderr
    *lines, last = (lab.directory() / "logs/server.it.log").read_text().splitlines()
    assert last == "all done"
    return lines


def test_a_program_gets_no_secret_of_the_callers_environment(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    lab = with_program(netlab, lab_name, tmp_path, privilege, "env", ", env: {MINE: given, TZ: UTC}")
    seen = dict(line.split("=", 1) for line in printed(lab, SECRET))
    its_own = {"MINE": "given", "TZ": "UTC", "NETLAB_LAB_NETNS": "server", "LANG": "C.UTF-8", "LC_TIME": "C"}
    assert {name: seen.get(name) for name in its_own} == its_own
    others = {name for name in seen if not name.startswith(("LC_", "NETLAB_LAB_"))}
    assert others - GIVEN - OF_A_SHELL == {"MINE"}


def run_with_programs(netlab: Netlab, name: str, privilege: str, directory: Path, look: str) -> None:
    """Run an experiment, with the caller's secret; look is both its step in client and a readiness check in server."""
    topology, document = directory / "topology.yaml", directory / "document.yaml"
    topology.write_text(
        "namespaces:\n  node: {role: node}\n  client: {role: pod}\n  server:\n    role: pod\n"
        f"    programs: [{{name: it, command: sleep 1000, ready: {{{look}}}}}]\n"
        "bridges: [{name: cni0, netns: node, ports: [client, server]}]\n"
        "services: {web: {port: 80, endpoints: [server]}}\n"
    )
    document.write_text(
        f"claim: It shows.\ntopology: {topology}\nclient: client\nservice: web\n"
        f"steps: [connect, program: {{in: client, {look}}}, finish]\nexpect: {{plain: completed}}\n"
    )
    done = netlab("run", document, "--name", name, privilege, "--trials", "1", env=SECRET)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_readiness_check_and_an_experiments_program_get_no_secret(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    run_with_programs(netlab, lab_name, privilege, tmp_path, f"command: [sh, -c, 'env >{tmp_path}/$NETLAB_LAB_NETNS']")
    for netns in ("client", "server"):
        assert "of-the-caller" not in (tmp_path / netns).read_text()


def test_the_holder_has_no_secret_of_the_callers_environment(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege)
    done = netlab("up", lab.file, "--name", lab_name, privilege, env=SECRET)
    assert done.returncode == 0, done.stderr
    assert "of-the-caller" not in lab.exec("client", "cat", "/proc/1/environ")


def test_a_command_of_the_callers_own_gets_the_callers_environment(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege)
    lab.up()
    command = ("exec", "-l", lab_name, "client", "--", "printenv", "AWS_SECRET_ACCESS_KEY", "NETLAB_LAB_NETNS")
    assert netlab(*command, env=SECRET).stdout == "of-the-caller\nclient\n"


# --- what it may do --------------------------------------------------------------------------------------------------

HELD = {
    *("AUDIT_WRITE", "BPF", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "IPC_LOCK", "KILL", "NET_ADMIN"),
    *("NET_BIND_SERVICE", "NET_BROADCAST", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    *("SYS_NICE", "SYS_RESOURCE"),
}


def held(privilege: str) -> set[str]:
    """HELD, but for what root itself lacks here: in a container, say."""
    mine = capabilities(Path("/proc/self/status").read_text())["CapBnd"]
    return HELD & mine if privilege == "--root" else HELD


def capabilities(status: str) -> dict[str, set[str]]:
    """The sets of capabilities that /proc/PID/status tells of, by its keys."""
    lines = [line.split(":\t") for line in status.splitlines() if line.startswith("Cap")]
    return {
        key: {name for number, name in enumerate(CAPABILITIES) if int(value, 16) >> number & 1} for key, value in lines
    }


def test_a_program_has_the_capabilities_of_networks_and_daemons(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    status = "\n".join(printed(with_program(netlab, lab_name, tmp_path, privilege, "cat /proc/self/status")))
    none: set[str] = set()
    has = held(privilege)
    assert capabilities(status) == {"CapInh": none, "CapPrm": has, "CapEff": has, "CapBnd": has, "CapAmb": none}
    assert f"NoNewPrivs:\t{int(privilege == '--rootless')}\n" in status


def test_a_program_has_what_its_file_names_beside(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    more = ", capabilities: [SYS_ADMIN, SYS_PTRACE]"
    lab = with_program(netlab, lab_name, tmp_path, privilege, "cat /proc/self/status; mount -t tmpfs none /mnt", more)
    assert capabilities("\n".join(printed(lab)))["CapEff"] == held(privilege) | {"SYS_ADMIN", "SYS_PTRACE"}
    assert "(may SYS_ADMIN, SYS_PTRACE)\n" in netlab("plan", lab.file).stdout
    lab.write(lab.file.read_text().replace(", SYS_PTRACE", ""))
    lab.up()
    assert capabilities((lab.directory() / "logs/server.it.log").read_text())["CapEff"] == held(privilege) | {
        "SYS_ADMIN"
    }


def test_a_readiness_check_and_an_experiments_program_have_no_more(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    look = f"command: [sh, -c, 'cat /proc/self/status >{tmp_path}/$NETLAB_LAB_NETNS']"
    run_with_programs(netlab, lab_name, privilege, tmp_path, look)
    for netns in ("client", "server"):
        assert capabilities((tmp_path / netns).read_text())["CapBnd"] == held(privilege)


NETWORKING = """
set -e
ip link add made type veth peer name other
ip link set made up
ip address add 192.0.2.1/24 dev made
ip rule add from 192.0.2.0/24 table 7
tc qdisc add dev made root pfifo
nft add table inet mine
iptables -t nat -A POSTROUTING -j MASQUERADE
sysctl -q -w net.ipv4.ip_forward=1
ip link set lo up
tcpdump -nn -i lo -c 1 --immediate-mode udp 2>listening >seen &
until grep -qs listening listening; do sleep 0.01; done
echo >/dev/udp/127.0.0.1/9
wait $!
grep -q "127.0.0.1.9: UDP" seen
"""
"""What programs of a network do."""


def test_a_program_makes_what_a_network_needs(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    for program in ("bash", "ip", "tc", "nft", "iptables", "sysctl", "tcpdump"):
        skips.skip_unless_program(program)
    script = tmp_path / "networking.sh"
    script.write_text(NETWORKING)
    run = f"cd {tmp_path}; bash {script} || exit"
    assert printed(with_program(netlab, lab_name, tmp_path, privilege, run)) == []


@pytest.mark.parametrize(
    "attempt",
    [
        "mount -t tmpfs none /mnt",
        "umount /sys",
        "unshare --mount true",
        "nsenter --target 1 --mount true",
        "mknod null c 1 3",
    ],
)
def test_a_program_does_not_do_what_is_the_machines(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path, attempt: str
) -> None:
    skips.skip_unless_program(attempt.split()[0])
    script = f"cd {tmp_path}; {attempt} 2>/dev/null && echo it could"
    assert printed(with_program(netlab, lab_name, tmp_path, privilege, script)) == []


@pytest.mark.parametrize("attempt", ["true", "--map-root-user --mount --cgroup mount -t cgroup2 none /mnt"])
def test_a_program_makes_no_user_namespace(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path, attempt: str
) -> None:
    skips.skip_unless_program("unshare")
    script = f"unshare --user {attempt} 2>/dev/null && echo it could"
    assert printed(with_program(netlab, lab_name, tmp_path, privilege, script)) == []


def test_a_program_with_sys_admin_makes_a_user_namespace(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    skips.skip_unless_program("unshare")
    more = ", capabilities: SYS_ADMIN"
    assert printed(with_program(netlab, lab_name, tmp_path, privilege, "unshare --user true || exit", more)) == []


KEYS = """
import ctypes
KEYCTL, GET_KEYRING_ID, SESSION = %d, 0, -3  # include/uapi/linux/keyctl.h
if ctypes.CDLL(None).syscall(KEYCTL, GET_KEYRING_ID, SESSION, 0) != -1:
    print("it has keys")
"""


def test_a_program_has_no_keyring(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    script = tmp_path / "keys.py"
    script.write_text(KEYS % {"x86_64": 250, "aarch64": 219}[os.uname().machine])
    script.chmod(0o644)
    look = f"{shlex.join([sys.executable, str(script)])} || exit"
    assert printed(with_program(netlab, lab_name, tmp_path, privilege, look)) == []


def test_a_program_does_not_read_a_commands_environment(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    told, seen = tmp_path / "told", tmp_path / "seen"
    wait = f"until test -s {told}; do sleep 0.01; done"
    look = f"({wait}; cat /proc/$(cat {told})/environ >{seen} 2>&1; echo >>{seen}) & :"
    lab = with_program(netlab, lab_name, tmp_path, privilege, look)
    lab.up()
    command = netlab.argv("exec", "client", "--", "sh", "-c", f"echo $$ >{told}.new; mv {told}.new {told}; cat")
    with subprocess.Popen(command, env=netlab.environment(SECRET), stdin=subprocess.PIPE) as held:
        assert held.stdin is not None
        labs.until(lambda: seen.exists() and seen.read_text().endswith("\n"), "the program to have tried")
        held.stdin.close()
    assert "Permission denied" in seen.read_text()


def test_a_program_ends_a_command(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    told = tmp_path / "told"
    wait = f"until test -s {told}; do sleep 0.01; done"
    lab = with_program(netlab, lab_name, tmp_path, privilege, f"({wait}; kill -9 $(cat {told})) & :")
    lab.up()
    command = ("exec", "client", "--", "sh", "-c", f"echo $$ >{told}.new; mv {told}.new {told}; exec sleep 1000")
    assert netlab(*command).returncode == -signal.SIGKILL


def test_a_program_has_no_terminal(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    opened = f"command: [sh, -c, '(: </dev/tty) 2>/dev/null && touch {tmp_path}/opened; true']"
    program = f"{{name: it, command: sleep 1000, ready: {{{opened}}}}}"
    topology = f"namespaces: {{server: {{programs: [{program}]}}}}\n"
    lab = labs.make(netlab, lab_name, tmp_path, privilege, topology)
    with terminal(lab, *netlab.argv("up", lab.file, "--name", lab_name, privilege)) as screen:
        assert screen.wait() == 0
    assert lab.exec("server", "true") == ""
    assert not (tmp_path / "opened").exists()


def test_a_command_of_the_callers_own_has_the_callers_capabilities(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege)
    lab.up()
    found = capabilities(lab.exec("client", "cat", "/proc/self/status"))
    assert {"SYS_ADMIN", "SYS_PTRACE"} <= found["CapEff"]
