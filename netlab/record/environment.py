"""What a run depended on beside its topology. Pure; `lab/environment.py` collects it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Environment:
    """kernel is JSON: version, configuration, modules. sysctls are the values by name, rules what `nft list ruleset`
    says, both by namespace.
    """

    kernel: Mapping[str, Any]
    sysctls: Mapping[str, Mapping[str, str]]
    rules: Mapping[str, str]
