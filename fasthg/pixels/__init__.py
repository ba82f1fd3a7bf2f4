"""Between photographs, crops and heatmaps: geometry, reading and warping images, joints in heatmaps, drawing."""
