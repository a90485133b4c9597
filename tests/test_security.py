"""Each claim of SECURITY.md has its test."""

from __future__ import annotations

import re

from places import ROOT

TESTS = {
    "A lab has a host name": "lab/test_isolation.py::test_a_lab_has_a_host_name_and_ipc_of_its_own",
    "The process that holds": "lab/test_isolation.py::test_the_holder_stands_in_no_network_namespace_of_the_hosts",
    "A lab keeps no file": "lab/test_descriptors.py::test_a_lab_keeps_no_lock_of_who_built_it",
    "A program in a lab reads": "lab/test_isolation.py::test_a_program_acts_on_files_as_who_made_the_lab",
    "A program in a lab gets": "lab/test_isolation.py::test_a_program_gets_the_callers_environment",
    "A program that `netlab": "lab/test_descriptors.py::test_a_program_in_the_foreground_gets_the_callers_descriptors",
}
"""How each claim begins, and its test."""


def test_each_claim_has_its_test() -> None:
    claims = re.findall(r"^- (.*)$", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)
    assert [next((begin for begin in TESTS if claim.startswith(begin)), claim) for claim in claims] == list(TESTS)
    for place in TESTS.values():
        file, _, test = place.partition("::")
        assert f"def {test}(" in (ROOT / "tests" / file).read_text()
