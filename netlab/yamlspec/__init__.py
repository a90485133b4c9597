"""YAML nodes with positions, shapes of values, `--set` paths and JSON Schema. Pure; knows no lab."""
