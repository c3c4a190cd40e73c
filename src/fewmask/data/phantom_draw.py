"""Drawing a phantom patient: shares of tissue, painted back to front, and the label map."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewmask.data import phantom_anatomy as anatomy
from fewmask.data.phantom_lesions import nodule_coverage, opacity_share
from fewmask.data.phantom_patient import Body, Nodule, Patient
from fewmask.data.phantom_shapes import Field, Places, capsule, coverage, ellipse, tilted_ellipse

LABELS: Mapping[str, int] = {
    "left_lung": 1,
    "right_lung": 2,
    "heart": 3,
    "nodule": 4,
    "opacity": 5,
    "spinal_canal": 6,
    "oesophagus": 7,
    "aorta": 8,
}
"""Every organ that is labelled while drawing."""

RIB_MM = 25.0
"""Distance from rib to rib along z."""


@dataclass(frozen=True, eq=False)
class Canvas:
    """A part of the picture: places, values and labels are views of the whole picture's arrays."""

    places: Places
    values: NDArray[np.float32]
    """(Z, Y, X) in the units of the modality."""
    labels: NDArray[np.uint8]
    """(Z, Y, X)."""
    table: Mapping[str, float]
    """Value of each tissue."""
    pixel_mm: float
    thickness_mm: float

    def near(self, x: tuple[float, float], y: tuple[float, float]) -> "Canvas":
        """The part within x and y, both (low, high) in mm."""
        columns = slice(*np.searchsorted(self.places.x.ravel(), x).tolist())
        rows = slice(*np.searchsorted(self.places.y.ravel(), y).tolist())
        places = Places(self.places.x[:, :, columns], self.places.y[:, rows], self.places.z)
        part = (slice(None), rows, columns)
        shape = (self.values[part], self.labels[part], self.table, self.pixel_mm, self.thickness_mm)
        return Canvas(places, *shape)

    def layers(self, low: float, high: float) -> "Canvas":
        """The part whose slices lie within `low` to `high` mm."""
        part = slice(*np.searchsorted(self.places.z.ravel(), (low, high)).tolist())
        places = Places(self.places.x, self.places.y, self.places.z[part])
        return Canvas(
            places, self.values[part], self.labels[part], self.table, self.pixel_mm, self.thickness_mm
        )

    def paint(self, tissue: str, share: Field) -> None:
        """Replace `share` of each voxel by a tissue."""
        self.values[...] += share * (np.float32(self.table[tissue]) - self.values)

    def fill(self, tissue: str, distance: Field, width_mm: float | None = None) -> None:
        """Paint the inside of a shape; `width_mm` tells that it may be thinner than a pixel."""
        self.paint(tissue, coverage(distance, self.pixel_mm, width_mm))

    def mark(self, organ: str, inside: NDArray[np.bool_]) -> None:
        """Label voxels."""
        np.copyto(self.labels, LABELS[organ], where=inside)


def draw(canvas: Canvas, patient: Patient) -> NDArray[np.uint8]:
    """Draw the whole patient on an empty canvas (all air, no label); returns the labels without lesions."""
    body = patient.body
    _wall(canvas, body)
    reach = body.width - body.fat
    chest = canvas.near((-reach, reach), (-body.depth, body.depth))
    chest.fill("fat", anatomy.cavity(body, chest.places))
    _spine(chest, body)
    _below(chest, body)
    _great_vessels(chest, body)
    _heart(chest, body)
    distance = anatomy.lungs(body, chest.places)
    _lungs(chest, distance)
    _airways(chest, body)
    _vessels(chest, patient, anatomy.cavity(body, chest.places))
    organs = canvas.labels.copy()
    _lesions(chest, patient)
    return organs


def _wall(canvas: Canvas, body: Body) -> None:
    """Table, skin, fat, muscle, shoulder blades, ribs and breastbone."""
    p = canvas.places
    lying = body.depth + 6
    board = np.abs(p.y - lying - 12 + (p.x / 40) ** 2) - 1.5
    canvas.fill("table", np.maximum(np.abs(p.x) - 190, board).astype(np.float32), 3.0)
    canvas.fill("skin", anatomy.skin(body, p))
    canvas.fill("fat", anatomy.skin(body, p, 2.5))
    canvas.fill("muscle", anatomy.skin(body, p, body.fat))
    _fat_planes(canvas, body)
    for side in (-1.0, 1.0):
        blade = canvas.layers(30, 200)
        start, end = (
            (side * (body.width - 62), 0.66 * body.depth),
            (side * (body.width - 34), 0.22 * body.depth),
        )
        blade.fill("cortex", capsule(blade.places, start, end, 3.2), 6.0)
    _ribs(canvas, body)
    front = anatomy.CENTRE_Y - (body.depth - 0.8 * (body.fat + body.wall)) - 7
    bone = canvas.near((-30, 30), (front - 14, front + 14))
    distance = ellipse(bone.places, anatomy.sway(body, bone.places) * 0.3, front, 19.0, 6.0)
    bone.fill("cortex", distance)
    bone.fill("marrow", distance + 2)


def _fat_planes(canvas: Canvas, body: Body) -> None:
    """Thin fat between the layers of muscle, outside the ribs."""
    gap = anatomy.cavity(body, canvas.places, 15.0)
    canvas.paint("fat", np.float32(0.65) * coverage(np.abs(gap) - 1.6, canvas.pixel_mm, 3.2))


def _ribs(canvas: Canvas, body: Body) -> None:
    """Ribs slope down from back to front, so a slice cuts each as a short arc of the chest wall."""
    p = canvas.places
    middle = anatomy.cavity(body, p, 6.5)
    angle = np.arctan2(np.abs(p.x), p.y).astype(np.float32) / np.float32(np.pi)
    height = (p.z + 140 * angle) / RIB_MM + body.rib_phase + np.where(p.x > 0, 0.06, 0).astype(np.float32)
    along = (np.cos(2 * np.pi * height) - 0.1) * 12
    rib = np.maximum(np.abs(middle) - 4.2, -along).astype(np.float32)
    rib = np.maximum(rib, (angle - 0.84) * 200)
    canvas.fill("cortex", rib, 8.4)
    canvas.fill("marrow", rib + 2.3)
    cartilage = np.maximum(np.abs(middle) - 4.2, np.maximum(-along, (0.84 - angle) * 200))
    canvas.fill("cartilage", np.maximum(cartilage, np.abs(p.x) - 75).astype(np.float32), 8.4)


def _spine(chest: Canvas, body: Body) -> None:
    """Vertebral body and its arch around the canal, with discs in between."""
    part = chest.near((-50, 50), (body.spine_y - 25, body.depth))
    p, y = part.places, body.spine_y
    back = y + 12 + 9
    solid = np.maximum(np.abs(p.x) - 1.3 * body.vertebra, y - 12 - p.y)
    part.fill("muscle", np.maximum(solid, p.y - body.depth + body.fat).astype(np.float32))
    for side in (-1.0, 1.0):
        part.fill("cortex", capsule(p, (side * 10, back), (side * 33, back + 9), 4.0), 8.0)
    part.fill("cortex", capsule(p, (0.0, back + 12), (0.0, back + 30), 2.8), 5.6)
    part.fill("cortex", ellipse(p, 0.0, back, 15.0, 13.5))
    bone = ellipse(p, 0.0, y, body.vertebra, 14.0, 2.4)
    disc = (np.cos(2 * np.pi * (p.z / 27 + body.rib_phase)) > 0.72).astype(np.float32)
    part.fill("cortex", bone)
    part.fill("marrow", bone + 2.2)
    part.paint("cartilage", disc * coverage(bone, part.pixel_mm))
    canal = ellipse(p, 0.0, back, 10.0, 8.5)
    part.fill("fluid", canal)
    part.fill("cord", ellipse(p, 0.0, back, 6.0, 5.0), 11.0)
    part.mark("spinal_canal", canal < 0)


def _below(chest: Canvas, body: Body) -> None:
    """Liver and what lies left of it, under the diaphragm."""
    part = chest.layers(-1000, body.diaphragm + 5)
    p = part.places
    inside = np.maximum(anatomy.diaphragm(body, p), anatomy.cavity(body, p))
    part.fill("liver", np.asarray(inside, dtype=np.float32))


def _great_vessels(chest: Canvas, body: Body) -> None:
    """Both parts of the aorta, the upper vena cava, the lung's trunk and the oesophagus."""
    part = chest.near((-75, 75), (-75, body.spine_y + 20))
    p = part.places
    gullet, aorta = anatomy.oesophagus(body, p), anatomy.descending_aorta(body, p)
    part.fill("muscle", gullet)
    part.fill("air", ellipse(p, 4 + anatomy.sway(body, p), body.spine_y - 25, 2.5, 1.5), 3.0)
    part.fill("blood", aorta)
    part.mark("oesophagus", gullet < 0)
    part.mark("aorta", aorta < 0)
    base, top = body.heart_z + 0.55 * body.heart_height, body.fork + 28
    rising = part.layers(base, top)
    tube = ellipse(
        rising.places, -10 + anatomy.sway(body, rising.places), -22.0, 1.15 * body.aorta, 1.15 * body.aorta
    )
    rising.fill("blood", tube)
    rising.mark("aorta", tube < 0)
    arch = part.layers(top - 14, top)
    start, end = (-10.0, -22.0), (21.0, body.spine_y - 14)
    tube = capsule(arch.places, start, end, body.aorta, x=anatomy.sway(body, arch.places))
    arch.fill("blood", tube)
    arch.mark("aorta", tube < 0)
    vein = part.layers(base, top + 12)
    vein.fill("blood", ellipse(vein.places, -31 + anatomy.sway(body, vein.places), -16.0, 8.0, 9.0))
    trunk = part.layers(base, body.fork)
    middle = 20 + anatomy.sway(body, trunk.places)
    trunk.fill("blood", tilted_ellipse(trunk.places, middle, -24.0, 19.0, 12.0, 0.6))
    neck = part.layers(top, 1000)
    for x, y, radius in ((-16.0, -14.0, 6.5), (3.0, -9.0, 4.5), (17.0, 3.0, 5.0), (-27.0, -22.0, 7.5)):
        neck.fill("blood", ellipse(neck.places, x + anatomy.sway(body, neck.places), y, radius, radius))


def _heart(chest: Canvas, body: Body) -> None:
    """Muscle with its chambers, in a coat of fat."""
    reach = body.heart_long + 15
    part = chest.near(
        (body.heart_x - reach, body.heart_x + reach), (body.heart_y - reach, body.heart_y + reach)
    )
    p = part.places
    distance = anatomy.heart(body, p)
    long, short = anatomy.heart_axes(body, p)
    x = body.heart_x + anatomy.sway(body, p)
    cos, sin = float(np.cos(body.heart_angle)), float(np.sin(body.heart_angle))
    part.fill("heart", distance)
    # Chambers: along and across the long axis in half axes, then their own half axes.
    chambers = (
        (0.36, 0.22, 0.40, 0.36),
        (0.22, -0.48, 0.44, 0.30),
        (-0.42, 0.38, 0.34, 0.36),
        (-0.52, -0.30, 0.28, 0.38),
    )
    for along, across, a, b in chambers:
        cx = x + along * long * cos - across * short * sin
        cy = body.heart_y + along * long * sin + across * short * cos
        part.fill("blood", tilted_ellipse(p, cx, cy, a * long, b * short, body.heart_angle))
    groove = np.abs(distance + 3) - 1.6
    part.paint("fat", np.float32(0.5) * coverage(groove.astype(np.float32), part.pixel_mm, 3.2))
    part.mark("heart", (distance < 0) & (short > 4))


def _lungs(chest: Canvas, distance: Field) -> None:
    """Both lungs, denser towards the back."""
    p = chest.places
    share = coverage(distance, chest.pixel_mm)
    chest.paint("lung", share)
    heavy = np.clip((p.y + 20) / 400, 0, 0.12).astype(np.float32)
    chest.paint("muscle", share * heavy)
    inside = distance < 0
    chest.mark("left_lung", inside & (p.x > 3))
    chest.mark("right_lung", inside & (p.x <= 3))


def _airways(chest: Canvas, body: Body) -> None:
    """The windpipe and, below its fork, the two main bronchi."""
    part = chest.near((-60, 60), (-30, body.spine_y))
    upper = part.layers(body.fork, 1000)
    x, y = anatomy.sway(body, upper.places), body.spine_y - 38
    upper.fill("wall", ellipse(upper.places, x, y, 11.0, 10.0))
    upper.fill("air", ellipse(upper.places, x, y, 9.0, 8.0))
    lower = part.layers(body.fork - 34, body.fork)
    deep = (body.fork - lower.places.z).astype(np.float32)
    for side in (-1.0, 1.0):
        x = anatomy.sway(body, lower.places) + side * (7 + 1.05 * deep)
        lower.fill("wall", ellipse(lower.places, x, y + 0.15 * deep, 9.5, 7.5))
        lower.fill("air", ellipse(lower.places, x, y + 0.15 * deep, 7.5, 5.5))


def _vessels(chest: Canvas, patient: Patient, cavity: Field) -> None:
    """The lungs' vessels as the volume of blood in each voxel, gathered from points inside the branches."""
    p, pixel = chest.places, chest.pixel_mm
    z_step = chest.thickness_mm
    starts, ends, radius = patient.vessels[:, :3], patient.vessels[:, 3:6], patient.vessels[:, 6]
    z = p.z.ravel()
    seen = (np.maximum(starts[:, 2], ends[:, 2]) > z[0] - z_step) & (
        np.minimum(starts[:, 2], ends[:, 2]) < z[-1] + z_step
    )
    starts, ends, radius = starts[seen], ends[seen], radius[seen]
    if not len(starts) or 0 in cavity.shape:
        return
    points, volume = _points(starts, ends, radius, pixel, z_step)
    origin = np.array([p.x.ravel()[0], p.y.ravel()[0], z[0]], dtype=np.float32)
    voxel = np.array([pixel, pixel, z_step], dtype=np.float32)
    blood = _splat(np.asarray((points - origin) / voxel, dtype=np.float32), volume, cavity.shape)
    share = np.minimum(blood / np.float32(pixel * pixel * z_step), 1)
    chest.paint("blood", share * coverage(cavity, pixel))


def _points(
    starts: Field, ends: Field, radius: Field, pixel: float, z_step: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Points (m, 3) spread through the branches and the volume in mm3 that each stands for (m,)."""
    lengths = np.linalg.norm(ends - starts, axis=1)
    volumes = np.pi * radius**2 * lengths
    counts = np.ceil(np.maximum(lengths / (0.7 * pixel), 8 * volumes / (pixel * pixel * z_step))).astype(int)
    branch = np.repeat(np.arange(len(counts)), counts)
    rank = np.arange(len(branch)) - np.repeat(np.cumsum(counts) - counts, counts)
    # A golden-angle spiral fills the section evenly while the points walk along the branch.
    along = ((rank + 0.5) / counts[branch]).astype(np.float32)
    turn = (rank * 2.399963).astype(np.float32)
    out = radius[branch] * np.sqrt((rank * 0.618034) % 1).astype(np.float32)
    way = (ends - starts) / np.maximum(lengths, 1e-3)[:, None]
    side = np.cross(way, np.where(np.abs(way[:, 2:]) < 0.8, [[0, 0, 1]], [[1, 0, 0]]))
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(way, side)
    points = starts[branch] + along[:, None] * (ends - starts)[branch]
    points = (
        points + (out * np.cos(turn))[:, None] * side[branch] + (out * np.sin(turn))[:, None] * up[branch]
    )
    return points.astype(np.float32), (volumes / counts)[branch].astype(np.float32)


def _splat(at: NDArray[np.float32], volume: NDArray[np.float32], shape: tuple[int, ...]) -> Field:
    """Volumes gathered on a grid (Z, Y, X) from points (m, 3) in voxels (x, y, z), linearly shared."""
    sizes = np.array(shape[::-1])
    inside = ((at > -1) & (at < sizes)).all(axis=1)
    at, volume = at[inside], volume[inside]
    low = np.floor(at).astype(np.int64)
    rest = at - low
    z_size, y_size, x_size = (n + 2 for n in shape)
    total = np.zeros(z_size * y_size * x_size)
    for dz in (0, 1):
        weight_z = volume * (rest[:, 2] if dz else 1 - rest[:, 2])
        for dy in (0, 1):
            weight = weight_z * (rest[:, 1] if dy else 1 - rest[:, 1])
            row = ((low[:, 2] + 1 + dz) * y_size + low[:, 1] + 1 + dy) * x_size + low[:, 0] + 1
            total += np.bincount(row, weight * (1 - rest[:, 0]), len(total))
            total += np.bincount(row + 1, weight * rest[:, 0], len(total))
    return total.reshape(z_size, y_size, x_size)[1:-1, 1:-1, 1:-1].astype(np.float32)


def _lesions(chest: Canvas, patient: Patient) -> None:
    """Nodules and opacities; the latter only where there is lung."""
    for lesion in patient.lesions:
        reach = 1.7 * lesion.radius + chest.pixel_mm
        x, y = (lesion.x - reach, lesion.x + reach), (lesion.y - reach, lesion.y + reach)
        around = reach + chest.thickness_mm
        part = chest.near(x, y).layers(lesion.z - around, lesion.z + around)
        if isinstance(lesion, Nodule):
            share = nodule_coverage(lesion, part.places, part.pixel_mm, part.thickness_mm)
            part.paint("lesion", share)
            part.mark("nodule", share > 0.5)
            continue
        inside = (part.labels == LABELS["left_lung"]) | (part.labels == LABELS["right_lung"])
        share = opacity_share(lesion, part.places)
        part.paint("lesion", np.float32(lesion.density) * np.minimum(share * 2, 1) * inside)
        part.mark("opacity", (share > 0.25) & inside)
