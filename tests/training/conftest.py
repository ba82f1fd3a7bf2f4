"""People whose joints can be seen: photographs with a coloured disc at each joint."""

import json

import cv2
import numpy as np
import pytest

NUM_JOINTS = 16
DISC_RADIUS = 9  # pixels of the photograph
SUBPIXEL_BITS = 8  # of OpenCV's fixed-point coordinates


def joint_colour(joint: int) -> np.ndarray:
    """RGB of a joint's disc: every joint has its own."""
    return np.array([40 + 60 * (joint % 4), 40 + 60 * (joint // 4), 250 - 12 * joint], np.float64)


@pytest.fixture(scope="session")
def marked_people(tmp_path_factory):
    """Folder of ten people to train on and two to validate on, each a disc a joint on a dark 640x480 photograph."""
    folder = tmp_path_factory.mktemp("marked")
    (folder / "images").mkdir()
    rng = np.random.default_rng(5)
    records = []
    for row in range(12):
        center, scale = rng.uniform((290, 210), (350, 250)), rng.uniform(0.9, 1.3)
        grid = np.stack(np.meshgrid(np.linspace(-1.5, 1.5, 4), np.linspace(-1.5, 1.5, 4)), axis=-1).reshape(-1, 2)
        joints = center + (0, 15 * scale) + grid * 50 * scale + rng.uniform(-8, 8, (NUM_JOINTS, 2))
        photograph = np.full((480, 640, 3), 20, np.uint8)
        for joint, place in enumerate(joints):
            index = ((place - 0.5) * 2**SUBPIXEL_BITS).round().astype(int).tolist()
            radius = DISC_RADIUS * 2**SUBPIXEL_BITS
            cv2.circle(photograph, index, radius, joint_colour(joint)[::-1].tolist(), -1, cv2.LINE_AA, SUBPIXEL_BITS)
        name = f"{row:02d}.jpg"
        quality = [cv2.IMWRITE_JPEG_QUALITY, 98, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
        cv2.imwrite(str(folder / "images" / name), photograph, quality)
        records.append(
            {
                "img_paths": name,
                "isValidation": float(row >= 10),
                "objpos": (center + 0.5).tolist(),
                "scale_provided": scale,
                "joint_self": [
                    [joint_x + 0.5, joint_y + 0.5, joint % 2] for joint, (joint_x, joint_y) in enumerate(joints)
                ],
            }
        )
    (folder / "annotations.json").write_text(json.dumps(records))
    return folder


@pytest.fixture(scope="session")
def joint_colours():
    """RGB [16,3] of the discs of `marked_people`."""
    return np.stack([joint_colour(joint) for joint in range(NUM_JOINTS)])
