"""Between photographs, crops and heatmaps: `image` reads and crops, `geometry` maps, `heatmap` finds joints.

`pictures` is what OpenCV does not read, `skeleton` names the joints, `draw` shows them.
"""
