"""Articulated people, rendered with NumPy and OpenCV: the embedded stand-in for MPII's photographs.

`pose` draws human joint angles and turns them into a skeleton in space (`skeleton`); `lift` guesses one from the real
joints of an MPII record instead. `look` chooses body, clothes and face, `people` makes shaded tubes and ellipsoids of
both, `raster` draws those into a depth buffer, `background` and `effects` do what surrounds a person, `scene` puts an
image and its annotation together, and `chunk` writes runs of them to disk.

Camera coordinates: x to the right, y down, z away from the viewer. Lengths on the body are in MPII's unit, 200 * scale
pixels, which is 4.8 diagonals of the head's box: about the height of a standing person.
"""
