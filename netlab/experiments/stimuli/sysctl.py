"""sysctl: a sysctl of one namespace gets another value, and its former one when the trial is over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netlab.experiments.words import NETNS
from netlab.lab.steps import SetSysctl
from netlab.topology import sysctls
from netlab.yamlspec.shapes import Fields, Key, Text

if TYPE_CHECKING:
    from netlab.experiments.context import Context

DOC = "a sysctl of one namespace gets another value until the trial is over"
ARGUMENTS = Fields(
    {
        "in": Key(NETNS, "the namespace", required=True),
        "name": Key(Text("a sysctl's name", sysctls.sysctl, sysctls.SYSCTL), "as in sysctl(8)", required=True),
        "value": Key(Text("a value", sysctls.sysctl_value, numbers=True), "what is written", required=True),
    }
)


def apply(context: Context, arguments: Mapping[str, Any]) -> None:
    """Write it; StepError where the kernel refuses."""
    netns, name = arguments["in"], arguments["name"]
    before = context.read_sysctl(netns, name)
    context.change(netns, [SetSysctl(netns, name, arguments["value"])], [SetSysctl(netns, name, before)])
