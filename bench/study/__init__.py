"""The published study: its figures, and our trainings of its variants at reduced size."""
