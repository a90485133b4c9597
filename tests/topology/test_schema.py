"""The JSON Schema: the committed file is what the code says, and it agrees with the loader."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator
from places import DATA, TOPOLOGIES

from netlab.experiments import schema
from netlab.topology.language import TOPOLOGY

VALIDATOR = Draft7Validator(schema.schema())


def test_the_committed_schema_is_the_generated_one() -> None:
    assert (TOPOLOGIES / "topology.schema.json").read_text() == schema.text(), "scripts/pages writes it anew"


def test_it_is_a_schema() -> None:
    Draft7Validator.check_schema(schema.schema())


@pytest.mark.parametrize("path", sorted(TOPOLOGIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_topology_is_valid_and_names_the_schema(path: Path) -> None:
    text = path.read_text()
    assert [error.message for error in VALIDATOR.iter_errors(yaml.safe_load(text))] == []
    assert text.startswith("# yaml-language-server: $schema=topology.schema.json\n")


def test_every_key_is_documented_for_editors() -> None:
    properties = schema.schema()["properties"]
    assert list(properties) == list(TOPOLOGY.keys)
    assert [name for name, rule in properties.items() if not rule.get("description")] == []


@pytest.mark.parametrize(
    "name",
    ["unknown-keys", "wrong-types", "missing-keys", "no-namespaces", "names", "interface-names", "link-attributes"],
)
def test_an_editor_sees_what_is_wrong_with_one_value(name: str) -> None:
    text = (DATA / "malformed" / f"{name}.yaml").read_text()
    assert not VALIDATOR.is_valid(yaml.safe_load(text))


def test_a_variable_may_stand_for_any_scalar() -> None:
    text = 'vars: {n: 1500}\nnamespaces: {a: }\nbridges: [{name: br0, netns: a, mtu: "${n}", stp: "${n}"}]'
    assert VALIDATOR.is_valid(yaml.safe_load(text))
    assert not VALIDATOR.is_valid(yaml.safe_load(text.replace('"${n}"', "n")))
