"""Annotated people: the formats that MPII goes round in, datasets as folders, and the calibration crops that ship."""
