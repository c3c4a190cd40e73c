"""From how much a method changed each pixel of the test slices to masks, rows, and scores of its maps."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewmask.core.volume import IGNORE, Mask, Volume
from fewmask.data.case import Case
from fewmask.data.overlay import Picture, contact_sheet
from fewmask.data.prepare import Trace, undo
from fewmask.data.slices import SliceSet
from fewmask.metrics import maps, pointing
from fewmask.metrics.score import Row
from fewmask.recipes.ground import Ground
from fewmask.segmenter.evaluate import score_masks
from fewmask.synthesis.difference import (
    Calibration,
    DifferenceSettings,
    calibrate,
    calibrated,
    document_rule,
    masks_of,
)
from fewmask.synthesis.healthy import Floats, Healthy, ToHealthy

Bools = NDArray[np.bool_]
Masks = NDArray[np.uint8]
Boxes = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Scene:
    """What every method is asked about; nothing here trains anything.

    healthy: (V, C, H, W), healthy slices of validation patients, which set thresholds; test: every slice of
    the test cases, with their masks where they have some; bodies of both, or None for everywhere; diseased:
    (N,) 1 diseased, 0 healthy, -1 in neither domain: image labels of the test slices; boxes: of each test
    slice (K, 4), on the prepared grid, or None where nobody drew boxes.
    """

    healthy: Floats
    healthy_bodies: Bools | None
    test: SliceSet
    bodies: Bools | None
    diseased: NDArray[np.int8]
    boxes: tuple[Boxes, ...] | None

    @property
    def judged(self) -> NDArray[np.intp]:
        """The rows of the test slices that belong to a domain."""
        return np.flatnonzero(self.diseased >= 0)


@dataclass(frozen=True, eq=False)
class Seen:
    """What a method makes of the test slices.

    healthy: the slices made healthy, and delta; maps: (N, H, W), comparable between images; masks: (N, H, W),
    1 diseased; calibration: None where the document's rule made the masks.
    """

    healthy: Healthy
    maps: Floats
    masks: Masks
    calibration: Calibration | None


def look(method: ToHealthy, scene: Scene, how: DifferenceSettings) -> Seen:
    """Ask a method about all test slices, and take its threshold from healthy validation slices."""
    made = method(np.asarray(scene.test.images, np.float32))
    quiet = method(np.asarray(scene.healthy, np.float32))
    if not quiet.delta.any() and not made.delta.any():
        return Seen(made, made.delta, np.zeros(made.delta.shape, np.uint8), None)
    calibration = calibrate(quiet.delta, scene.healthy_bodies, how)
    found = calibrated(calibration, made.delta, scene.bodies)
    return Seen(made, found, masks_of(calibration, found), calibration)


def by_document(seen: Seen, scene: Scene) -> Seen:
    """The same slices by the document's rule: each image by its own maximum, 0.3 < d < 0.8."""
    images = np.asarray(scene.test.images, np.float32)
    soft, masks = document_rule(images, seen.healthy.images)
    return Seen(seen.healthy, soft, masks, None)


def whole_body(seen: Seen) -> Seen:
    """The same, with masks of all that changed: bodies, whatever healthy slices show."""
    return Seen(seen.healthy, seen.maps, (seen.healthy.delta > 0).astype(np.uint8), None)


def rows_of(ground: Ground, scene: Scene, masks: Masks, *, arm: str, draw: int, place: str) -> list[Row]:
    """Score masks (N, H, W) of the test slices on the native grids of cases whose reference shows disease.

    Healthy cases are told by the area that masks cover there: their Dice is 1 or 0, and 1 for no skill.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for row, ref in enumerate(scene.test.refs):
        rows[ref.case].append(row)
    (value,) = ground.cohort.classes.values()

    def segment(case: Case, images: Mapping[str, Volume]) -> tuple[Mask, Trace]:
        trace = scene.test.traces[case.name]
        return undo(masks[rows[case.name]] * np.uint8(value), trace), trace

    scores = score_masks(
        segment,
        [case for case in ground.cohort.labelled if case.name in rows],
        ground.cohort,
        arm=arm,
        shots=0,
        draw=draw,
        folder=ground.run.cases(place),
        lesion_classes=ground.settings.cohort.lesions,
    )
    return [row for row in scores if row.reference_ml > 0]


def map_scores(scene: Scene, seen: Seen) -> dict[str, str]:
    """Scores of a method's maps in words, by their column; only those that the references allow."""
    test, whose = scene.test, list(scene.test.patients)
    found: dict[str, str] = {}
    reference = None if test.masks is None else (test.masks > 0) & (test.masks != IGNORE)
    inside = [row for row in scene.judged.tolist() if scene.diseased[row] == 1]
    outside = [row for row in scene.judged.tolist() if scene.diseased[row] == 0]
    if reference is not None and inside and reference[inside].any():
        found |= _pixels(seen, reference, inside, whose)
    if inside and outside:
        both = [*inside, *outside]
        scores = maps.image_scores(seen.maps[both])
        labels = np.array([True] * len(inside) + [False] * len(outside))
        ranking = maps.image_ranking(scores, labels, [whose[row] for row in both])
        found["AUROC, images"] = ranking.auroc.text(2)
    if outside:
        of = [whose[row] for row in outside]
        bodies = None if scene.bodies is None else scene.bodies[outside]
        area = maps.false_positive_area(seen.masks[outside], bodies)
        found["false-positive area"] = _percent(maps.mean_figure(area, of))
        images = np.asarray(test.images[outside], np.float32)
        changed = maps.identity_error(images, seen.healthy.images[outside])
        found["identity error"] = maps.mean_figure(changed, of).text(3)
    if scene.boxes is not None:
        found |= _boxes(seen, scene.boxes, whose)
    return found


def _pixels(seen: Seen, reference: Bools, inside: list[int], whose: list[str]) -> dict[str, str]:
    """Scores against masks, over the slices of the diseased domain."""
    of, truth = [whose[row] for row in inside], reference[inside]
    ranking = maps.pixel_ranking(seen.maps[inside], truth, of)
    return {
        "AUPRC, pixels": ranking.auprc.text(2),
        "AUROC, pixels": ranking.auroc.text(2),
        "prevalence": _percent(maps.mean_figure(maps.prevalence(truth), of)),
        "acc_mse_binary": _percent(maps.mean_figure(maps.acc_mse_binary(seen.masks[inside], truth), of)),
        "acc_mse_soft": _percent(maps.mean_figure(maps.acc_mse_soft(seen.maps[inside], truth), of)),
    }


def _boxes(seen: Seen, boxes: tuple[Boxes, ...], whose: list[str]) -> dict[str, str]:
    """Scores against boxes, over the slices that have some."""
    if not any(len(those) for those in boxes):
        return {}
    tolerance = 0.03 * max(seen.maps.shape[1:])
    hits, strict = (pointing.pointing(seen.maps, boxes, tolerance=t) for t in (tolerance, 0.0))
    return {
        "pointing": maps.mean_figure(hits, whose).text(2),
        "pointing, no tolerance": maps.mean_figure(strict, whose).text(2),
        "IoU with boxes": maps.mean_figure(pointing.box_iou(seen.masks, boxes), whose).text(2),
    }


def _percent(figure: maps.Figure) -> str:
    """`12.3 % [10.1, 14.0]`."""
    text = f"{figure.value:.1%}".replace("%", " %")
    if figure.low is None or figure.high is None:
        return text
    return f"{text} [{figure.low * 100:.1f}, {figure.high * 100:.1f}]"


def sheet(scene: Scene, seen: Seen, count: int = 8) -> Picture | None:
    """Diseased test slices one below the other: as they are, made healthy, map, mask, reference; or None.

    The map is grey, white where it reaches the largest value of the slices that are shown.
    """
    ill = np.flatnonzero(scene.diseased == 1)
    if not len(ill):
        return None
    rows = ill[np.unique(np.linspace(0, len(ill) - 1, min(count, len(ill))).astype(int))]
    images = np.asarray(scene.test.images[rows], np.float32)
    top = max(float(seen.maps[rows].max()), 1e-6)
    planes = [2 * seen.maps[rows] / top - 1, 2.0 * seen.masks[rows] - 1]
    if scene.test.masks is not None:
        planes.append(2.0 * (scene.test.masks[rows] > 0) - 1)
    wide = [np.repeat(plane[:, None], images.shape[1], axis=1) for plane in planes]
    columns = [images, np.asarray(seen.healthy.images[rows], np.float32), *wide]
    return contact_sheet(
        np.stack(columns, axis=1).reshape(-1, *images.shape[1:]), columns=len(columns), zoom=2
    )
