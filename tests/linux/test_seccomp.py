"""The seccomp filter of rootless labs: what it answers to each call, and that programs which change users go on."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import labs
import pytest
from command import Netlab

from netlab.linux.seccomp import filter_program

X86_64, I386, AARCH64, ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028
"""AUDIT_ARCH_* of include/uapi/linux/audit.h."""
ALLOW, ANSWER_0 = 0x7FFF0000, 0x00050000
"""SECCOMP_RET_ALLOW; SECCOMP_RET_ERRNO with the error 0."""
X32_BIT = 0x40000000


def answer(program: bytes, arch: int, number: int) -> int:
    """What a filter returns for a system call, by the rules of classic BPF; only the instructions it has."""
    data = struct.pack("=iI", number, arch)
    instructions = list(struct.iter_unpack("=HBBI", program))
    accumulator, at = 0, 0
    while True:
        code, if_true, if_false, k = instructions[at]
        at += 1
        if code == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            (accumulator,) = struct.unpack_from("=I", data, k)
        elif code == 0x15:  # BPF_JMP | BPF_JEQ | BPF_K
            at += if_true if accumulator == k else if_false
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
    program = filter_program(machine)
    assert program is not None
    assert {number for number in range(1000) if answer(program, arch, number) == ANSWER_0} == set(calls.values())
    assert {answer(program, arch, number) for number in set(range(1000)) - set(calls.values())} == {ALLOW}


def test_calls_of_another_table_are_let_through() -> None:
    for machine, own, other in (("x86_64", X86_64, I386), ("aarch64", AARCH64, ARM)):
        program = filter_program(machine)
        assert program is not None
        assert {answer(program, other, number) for number in range(1000)} == {ALLOW}
        assert {answer(program, own, X32_BIT | number) for number in range(1000)} == {ALLOW}


def test_there_is_no_filter_for_an_unlisted_architecture() -> None:
    assert filter_program("riscv64") is None


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
