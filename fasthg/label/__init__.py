"""Labelling more photographs than one process should: in blocks that are kept as they are done, by Ray where asked."""
