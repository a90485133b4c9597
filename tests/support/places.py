"""Where the project's files lie."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""

TOPOLOGIES, DOCS = ROOT / "topologies", ROOT / "docs"
DATA, SUPPORT = ROOT / "tests" / "data", ROOT / "tests" / "support"
