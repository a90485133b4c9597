"""Experiments: documents and how they are played.

Pure: `catalogue.py` finds documents, `language.py` reads them, `resolve.py` looks their names up, `roles.py` says who
plays what. Then `trials.py` plays them on a `context.py`, with one `connection.py` or those of `load/`.
"""
