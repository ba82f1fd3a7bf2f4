"""Articulated people, rendered with NumPy and OpenCV: the embedded stand-in for MPII's photographs.

`pose` draws human joint angles and turns them into a skeleton in space (`skeleton`), or `lift` guesses one from the real
two-dimensional joints of an MPII record; `look` chooses body, clothes and face, `people` turns both into shaded tubes and
ellipsoids, `raster` draws those into a depth buffer, `background` and `effects` do what surrounds a person, and `scene`
puts an image and its MPII record together.

Camera coordinates: x to the right, y down, z away from the viewer. Lengths on the body are in MPII's unit, 200 * scale
pixels, which is 4.8 head-box diagonals: about the height of a standing person.
"""
