"""The JSON Schema of topologies and of experiments, made from the same description of the keys that they are read with.

It says what one value may be, for editors to complete and check while typing. What keys mean together (references,
subnets, loops) only `netlab.topology.load` checks.
"""

from __future__ import annotations

import json
from typing import Any

from netlab.experiments.language import CONDITION, EXPERIMENT, STEP, TOPOLOGY
from netlab.links.qdisc import QDISC

DRAFT = "http://json-schema.org/draft-07/schema#"
"""The draft that editors' YAML support understands best (redhat.vscode-yaml and others check draft 7 in full)."""


def schema(of: str = "topology") -> dict[str, Any]:
    """The schema as data: of a "topology" or of an "experiment"."""
    if of == "experiment":
        title, description, fields = "netlab experiment", "A claim about the kernel, and how it is shown", EXPERIMENT
    else:
        title, fields = "netlab topology", TOPOLOGY
        description = "A lab of network namespaces, bridges, links and kube-proxy-style services"
    return {
        "$schema": DRAFT,
        "title": title,
        "description": description,
        "definitions": {
            "uses_variable": {
                "description": "a text with ${name} in it stands for the value of that name under vars",
                "type": "string",
                "pattern": r"\$\{[^{}]*\}",
            },
            **{shape.definition: shape.body() for shape in (QDISC, STEP, CONDITION)},
        },
        **fields.schema(),
    }


def text(of: str = "topology") -> str:
    """The schema as `netlab schema` prints it, and as topologies/{topology,experiment}.schema.json hold it."""
    return json.dumps(schema(of), indent=2, ensure_ascii=False) + "\n"
