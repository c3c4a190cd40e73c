"""Where the phantom's organs end: signed distances in mm of one patient's organs, negative inside."""

import numpy as np

from fewmask.data.phantom_patient import Body
from fewmask.data.phantom_shapes import Field, Places, bulge, dome, ellipse, join, tilted_ellipse

CENTRE_Y = -3.0
"""The chest's cavity lies a little in front of the body's middle."""


def sway(body: Body, places: Places) -> Field:
    """How far the organs at each height lie to the left of their place, in mm (Z, 1, 1)."""
    return np.asarray(body.sway * np.sin(places.z / 45 + body.sway_phase), dtype=np.float32)


def skin(body: Body, places: Places, inset: float = 0.0) -> Field:
    """Distance to the body's surface, or to the surface `inset` mm under it."""
    taper = 1 - 0.10 * np.clip((places.z - 30) / 100, 0, 1).astype(np.float32)
    width, depth = (body.width - inset) * taper, body.depth - 0.8 * inset
    surface = ellipse(places, 0.0, 0.0, width, depth, body.squareness)
    if body.breast < 8 or inset > 5:
        return surface
    share = bulge(places.z, -25, 75)
    for side in (-0.48, 0.48):
        soft = ellipse(
            places, side * width, -0.80 * depth, 62 * share - inset, (body.breast + 14) * share - inset
        )
        surface = join(surface, soft, 12)
    return surface


def cavity(body: Body, places: Places, margin: float = 0.0) -> Field:
    """Distance to the inner wall of the chest, or to a wall `margin` mm outside it."""
    height = np.clip((places.z - body.top + 150) / 150, 0, 1)
    narrow = np.sqrt(np.clip(1.02 - height**3, 0.02, 1)).astype(np.float32)
    inset = body.fat + body.wall - margin
    width, depth = (body.width - inset) * narrow, (body.depth - 0.8 * inset) * (0.35 + 0.65 * narrow)
    return ellipse(places, 0.0, CENTRE_Y, width, depth, 2.2)


def heart(body: Body, places: Places) -> Field:
    """Distance to the heart's surface."""
    share = bulge(places.z, body.heart_z, body.heart_height)
    x = body.heart_x + sway(body, places)
    long, short = body.heart_long * share, body.heart_short * share
    return tilted_ellipse(places, x, body.heart_y, long, short, body.heart_angle)


def heart_axes(body: Body, places: Places) -> tuple[Field, Field]:
    """Half axes of the heart's section at each height, in mm."""
    share = bulge(places.z, body.heart_z, body.heart_height)
    return (body.heart_long * share).astype(np.float32), (body.heart_short * share).astype(np.float32)


def descending_aorta(body: Body, places: Places, margin: float = 0.0) -> Field:
    """Distance to the aorta beside the spine."""
    x = 23 + sway(body, places) - 0.04 * (places.z + 40)
    return ellipse(places, x, body.spine_y - 14, body.aorta + margin, body.aorta + margin)


def oesophagus(body: Body, places: Places, margin: float = 0.0) -> Field:
    """Distance to the oesophagus, in front of the spine."""
    x, half = 4 + sway(body, places), body.oesophagus
    return ellipse(places, x, body.spine_y - 25, half + margin, 0.7 * half + margin)


def diaphragm(body: Body, places: Places) -> Field:
    """Distance to the two domes under the lungs: the liver right, stomach and spleen left."""
    right = dome(places.z, body.diaphragm, 92, 62)
    left = dome(places.z, body.diaphragm - 14, 84, 62)
    right_dome = ellipse(places, -62.0, -6.0, right, 0.82 * right)
    return np.minimum(right_dome, ellipse(places, 62.0, 2.0, left, 0.82 * left))


def mediastinum(body: Body, places: Places) -> Field:
    """Distance to all that lies between the lungs: spine, heart, great vessels and the fat around them."""
    x, y, z = places.x, places.y, places.z
    root = np.exp(-(((z + 5) / 40) ** 2))
    waist = np.exp(-(((y - 4) / 28) ** 2))
    half = body.mediastinum * (0.25 + waist) + 10 * root * waist
    band = np.abs(x - 3 - sway(body, places)) - half
    back = y - body.spine_y
    behind = np.maximum(np.abs(x) - body.vertebra - 4 - 0.4 * np.clip(back - 8, 0, 30), -12 - back)
    middle = join(band, behind, 14)
    middle = join(middle, descending_aorta(body, places, 3), 8)
    middle = join(middle, arch(body, places), 14)
    return join(middle, heart(body, places) - 3, 26)


def arch(body: Body, places: Places) -> Field:
    """Distance to the great vessels above the heart, taken together: a broad oval in front."""
    share = np.clip((places.z + 25) / 35, 0.05, 1) * np.clip((body.top - places.z) / 80, 0.4, 1)
    share = share.astype(np.float32)
    return ellipse(places, 2 + sway(body, places), -22.0, 40 * share, 26 * share)


def lungs(body: Body, places: Places) -> Field:
    """Distance to both lungs together."""
    outside = join(-cavity(body, places), mediastinum(body, places), 12)
    outside = join(outside, diaphragm(body, places), 8)
    return np.asarray(np.maximum(-outside, places.z - body.top))
