"""Experiments: documents and how they are run.

Pure: `catalogue.py` finds documents, `language.py` reads them, `resolve.py` looks their names up, `roles.py` says who
is who. Then `trials.py` runs them on a `context.py`, with one `connection.py` or those of `load/`.
"""
