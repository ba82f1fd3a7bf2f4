"""Artefacts for deployment: `export` builds one by `targets` and lets `compare` hold it to the reference.

`manifest` describes it; `artefact` is what lies on disk, and loads it.
"""
