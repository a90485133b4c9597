"""Experiments: documents and how they are played.

Pure: `catalogue.py` finds documents, `language.py` reads them, `resolve.py` looks their names up, `scene.py` says who
plays what. Then `trials.py` plays them on a `stage.py`, with one `connection.py` or those of `crowd/`.
"""
