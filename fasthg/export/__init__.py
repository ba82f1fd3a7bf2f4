"""Artefacts for deployment: built, described, and compared with the reference before they are kept."""
