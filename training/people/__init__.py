"""Rendered people: poses, bodies, clothes, light and photographs, in the format of MPII."""
