"""The JSON Schema of topology files, made from the same description of the keys that the loader checks with.

It says what one value may be, for editors to complete and check while typing. What keys mean together (references,
subnets, loops) only `netlab.topology.load` checks.
"""

from __future__ import annotations

import json
from typing import Any

from netlab.topology.language import QDISC, TOPOLOGY

DRAFT = "http://json-schema.org/draft-07/schema#"
"""The draft that editors' YAML support understands best (redhat.vscode-yaml and others check draft 7 in full)."""


def schema() -> dict[str, Any]:
    """The schema as data."""
    return {
        "$schema": DRAFT,
        "title": "netlab topology",
        "description": "A lab of network namespaces, bridges, links and kube-proxy-style services",
        "definitions": {
            "uses_variable": {
                "description": "a text with ${name} in it stands for the value of that name under vars",
                "type": "string",
                "pattern": r"\$\{[^{}]*\}",
            },
            QDISC.definition: QDISC.body(),
        },
        **TOPOLOGY.schema(),
    }


def text() -> str:
    """The schema as `netlab schema` prints it, and as topologies/topology.schema.json holds it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
