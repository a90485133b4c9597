"""The seccomp filters: what they answer to each call, and that programs of rootless labs which change users go on."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import labs
import pytest
from command import Netlab

from netlab.linux.seccomp import changing_users, confining, filter_program

X86_64, I386, AARCH64, ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028
"""AUDIT_ARCH_* of include/uapi/linux/audit.h."""
ALLOW, ANSWER_0, EPERM, ENOSYS = 0x7FFF0000, 0x00050000, 0x00050001, 0x00050026
"""SECCOMP_RET_ALLOW; SECCOMP_RET_ERRNO with the error 0, EPERM, ENOSYS."""
X32_BIT = 0x40000000


def answer(program: bytes, arch: int, number: int, argument: int = 0) -> int:
    """What a filter returns for a system call, by the rules of classic BPF; only the instructions it has."""
    data = struct.pack("=iIQQ", number, arch, 0, argument)
    instructions = list(struct.iter_unpack("=HBBI", program))
    accumulator, at = 0, 0
    while True:
        code, if_true, if_false, k = instructions[at]
        at += 1
        if code == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            (accumulator,) = struct.unpack_from("=I", data, k)
        elif code == 0x15:  # BPF_JMP | BPF_JEQ | BPF_K
            at += if_true if accumulator == k else if_false
        elif code == 0x45:  # BPF_JMP | BPF_JSET | BPF_K
            at += if_true if accumulator & k else if_false
        else:
            assert code == 0x06  # BPF_RET | BPF_K
            return int(k)


@pytest.mark.parametrize(
    ("machine", "arch", "calls"),
    [
        # arch/x86/entry/syscalls/syscall_64.tbl
        (
            "x86_64",
            X86_64,
            {
                "setuid": 105,
                "setgid": 106,
                "setreuid": 113,
                "setregid": 114,
                "setgroups": 116,
                "setresuid": 117,
                "setresgid": 119,
            },
        ),
        # include/uapi/asm-generic/unistd.h
        (
            "aarch64",
            AARCH64,
            {
                "setregid": 143,
                "setgid": 144,
                "setreuid": 145,
                "setuid": 146,
                "setresuid": 147,
                "setresgid": 149,
                "setgroups": 159,
            },
        ),
    ],
)
def test_only_calls_that_change_users_are_answered(machine: str, arch: int, calls: dict[str, int]) -> None:
    program = filter_program(changing_users(machine))
    assert {number for number in range(1000) if answer(program, arch, number) == ANSWER_0} == set(calls.values())
    assert {answer(program, arch, number) for number in set(range(1000)) - set(calls.values())} == {ALLOW}


def test_calls_of_another_table_are_let_through() -> None:
    for machine, own, other in (("x86_64", X86_64, I386), ("aarch64", AARCH64, ARM)):
        program = filter_program(changing_users(machine))
        assert {answer(program, other, number) for number in range(1000)} == {ALLOW}
        assert {answer(program, own, X32_BIT | number) for number in range(1000)} == {ALLOW}


def test_there_is_no_filter_for_an_unlisted_architecture() -> None:
    assert changing_users("riscv64") == confining("riscv64", user_namespaces=False) == {}


CONFINED = {
    # arch/x86/entry/syscalls/syscall_64.tbl and syscall_32.tbl
    ("x86_64", X86_64): {"clone": 56, "unshare": 272, "add_key": 248, "request_key": 249, "keyctl": 250},
    ("x86_64", I386): {"clone": 120, "unshare": 310, "add_key": 286, "request_key": 287, "keyctl": 288},
    # include/uapi/asm-generic/unistd.h and arch/arm/tools/syscall.tbl
    ("aarch64", AARCH64): {"clone": 220, "unshare": 97, "add_key": 217, "request_key": 218, "keyctl": 219},
    ("aarch64", ARM): {"clone": 120, "unshare": 337, "add_key": 309, "request_key": 310, "keyctl": 311},
}
CLONE3 = 435
CLONE_NEWUSER, OTHER_FLAGS = 0x10000000, 0xEFFFFFFF
"""include/uapi/linux/sched.h."""


@pytest.mark.parametrize(("machine", "arch"), CONFINED)
def test_a_confined_program_makes_no_user_namespace_and_has_no_keys(machine: str, arch: int) -> None:
    program = filter_program(confining(machine, user_namespaces=False))
    calls = CONFINED[machine, arch]
    flagged = {calls["clone"], calls["unshare"]}
    refused = {number for number in range(1000) if answer(program, arch, number, OTHER_FLAGS) == EPERM}
    assert refused == set(calls.values()) - flagged
    refused = {number for number in range(1000) if answer(program, arch, number, CLONE_NEWUSER | 17) == EPERM}
    assert refused == set(calls.values())
    assert answer(program, arch, CLONE3) == ENOSYS
    others = set(range(1000)) - set(calls.values()) - {CLONE3}
    assert {answer(program, arch, number, CLONE_NEWUSER) for number in others} == {ALLOW}


@pytest.mark.parametrize(("machine", "arch"), CONFINED)
def test_who_may_make_user_namespaces_has_no_keys_either(machine: str, arch: int) -> None:
    program = filter_program(confining(machine, user_namespaces=True))
    keys = {number for name, number in CONFINED[machine, arch].items() if "key" in name}
    assert {number for number in range(1000) if answer(program, arch, number, CLONE_NEWUSER) == EPERM} == keys
    assert {answer(program, arch, number) for number in set(range(1000)) - keys} == {ALLOW}


def test_another_numbering_of_calls_leads_around_nothing() -> None:
    program = filter_program(confining("x86_64", user_namespaces=False))
    for number in range(1000):
        for argument in (0, CLONE_NEWUSER):
            assert answer(program, X86_64, X32_BIT | number, argument) == answer(program, X86_64, number, argument)


BECOME = """
import os
os.setgroups([])
os.setgid(12)
os.setuid(12)
print(*os.getresuid(), *os.getresgid())
"""
SECCOMP = "grep Seccomp: /proc/self/status"


@pytest.mark.kernel
def test_a_program_of_a_rootless_lab_goes_on_as_its_root(
    netlab: Netlab, lab_name: str, tmp_path: Path, rootless: None
) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, "--rootless")
    lab.up()
    assert lab.exec("client", sys.executable, "-c", BECOME) == "0 0 0 0 0 0\n"


@pytest.mark.kernel
def test_a_program_of_roots_lab_becomes_another_user(
    netlab: Netlab, lab_name: str, tmp_path: Path, as_root: None
) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, "--root")
    lab.up()
    mine = Path("/proc/self/status").read_text()
    assert lab.exec("client", "sh", "-c", SECCOMP) in mine  # no filter but those this test runs under
    assert lab.exec("client", sys.executable, "-c", BECOME) == "12 12 12 12 12 12\n"
