"""Experiments: `catalogue.py` finds documents, `language.py` reads them, `scene.py` resolves their names: pure rooms.

`trials.py` plays them, on a `stage.py`, with one `connection.py` or the many of a `crowd.py`.
"""
