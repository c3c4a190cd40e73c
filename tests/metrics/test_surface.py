"""Surface distances: hand-computed, against the public tools' numbers, and against SimpleITK."""

import json

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fewmask.core.errors import ConfigError, ShapeError
from fewmask.metrics.surface import penalty_mm, surface, surface_distances

SPACING = (2.5, 1.0, 0.8)


def box(shape, *slices):
    mask = np.zeros(shape, bool)
    mask[slices] = True
    return mask


def ball(shape, centre, radius, spacing=(1, 1, 1)):
    grid = np.ogrid[tuple(slice(n) for n in shape)]
    return sum(((g - c) * s) ** 2 for g, c, s in zip(grid, centre, spacing, strict=True)) < radius**2


def test_surface_is_the_mask_minus_its_erosion():
    cube = box((5, 5, 5), slice(1, 4), slice(1, 4), slice(1, 4))
    assert surface(cube).sum() == 27 - 1
    # At the image's border the mask ends, as in medpy and MONAI.
    assert surface(np.ones((5, 5, 5), bool)).sum() == 125 - 27
    assert surface(np.ones((1, 5, 5), bool)).sum() == 25 - 9
    assert surface(np.ones((5, 5), bool)).sum() == 25 - 9
    assert surface(np.ones((1, 1, 1), bool)).sum() == 1


def test_two_voxels_apart():
    a, b = box((3, 4, 9), 1, 1, 1), box((3, 4, 9), 1, 2, 7)
    found = surface_distances(a, b, SPACING)
    expected = np.hypot(1.0, 6 * 0.8)
    assert found.assd_mm == found.hd_mm == found.hd95_mm == pytest.approx(expected)


def test_hand_computed_line():
    # Pixels 0..9 against pixels 0..4 of a row: every pixel of a one-pixel line is surface.
    a, b = box((3, 12), 1, slice(0, 10)), box((3, 12), 1, slice(0, 5))
    found = surface_distances(a, b, (1.0, 2.0))
    assert found.forward_mm.tolist() == [0, 0, 0, 0, 0, 2, 4, 6, 8, 10]
    assert found.backward_mm.tolist() == [0] * 5
    assert found.assd_mm == pytest.approx(30 / 15)
    assert found.hd95_mm == pytest.approx(8 + 0.55 * 2)  # 95 % of 9 intervals is 8.55: linear interpolation
    assert found.hd_mm == 10
    assert found.nsd(4.0) == pytest.approx((7 + 5) / 15)


def test_both_empty_is_zero_and_one_empty_is_the_penalty():
    none, some = np.zeros((4, 30, 40), bool), box((4, 30, 40), 1, 2, 3)
    both = surface_distances(none, none, SPACING)
    assert both.assd_mm == both.hd95_mm == both.hd_mm == 0.0
    diagonal = np.sqrt(10.0**2 + 30.0**2 + 32.0**2)
    for a, b in ((none, some), (some, none)):
        for penalty, expected in (("diag", diagonal), ("crossmoda", 350.0), ("brats_hd95", 373.13)):
            found = surface_distances(a, b, SPACING, penalty=penalty)
            assert found.assd_mm == found.hd95_mm == found.hd_mm == pytest.approx(expected)


def test_diagonal_of_a_picture_leaves_its_thickness_out():
    assert penalty_mm("diag", (1, 30, 40), (99.0, 1.0, 1.0)) == pytest.approx(50.0)


def test_unknown_penalty_and_missing_spacing_are_errors():
    with pytest.raises(ConfigError, match="'diagonal'"):
        penalty_mm("diagonal", (3, 3), (1, 1))
    with pytest.raises(ShapeError, match="one spacing per axis"):
        surface_distances(np.ones((2, 2), bool), np.ones((2, 2), bool), SPACING)


def test_sparse_slices_are_compared_by_their_outlines():
    a, b = ball((9, 40, 40), (4, 20, 20), 12), ball((9, 40, 40), (4, 20, 20), 9)
    unjudged = np.array([True] * 9)
    unjudged[[2, 5]] = False
    a[unjudged] = b[unjudged] = False
    sparse = surface_distances(a, b, (1, 1, 1), unjudged=unjudged)
    assert sparse.forward_mm.size == surface(a[2]).sum() + surface(a[5]).sum()
    # Without the hint every voxel of a lone slice is surface, which hides the distance.
    assert surface_distances(a, b, (1, 1, 1)).assd_mm < 0.5 * sparse.assd_mm


def test_parity_with_public_tools(parity_folder):
    """Ours: ASSD and HD as medpy and MONAI, HD95 as MONAI. Where those are NaN, ours is a number."""
    table = json.loads((parity_folder / "surface_metrics.json").read_text())
    arrays_ = np.load(parity_folder / "surface_metrics.npz")
    assert len(table) >= 20
    for case in table:
        name, spacing = case["name"], case["spacing"]
        reference, predicted = arrays_[f"{name}/gt"], arrays_[f"{name}/pred"]
        found = surface_distances(predicted, reference, spacing)
        ours = (found.assd_mm, found.hd95_mm, found.hd_mm)
        if not reference.any() or not predicted.any():
            both = not reference.any() and not predicted.any()
            expected = 0.0 if both else penalty_mm("diag", reference.shape, spacing)
            assert ours == pytest.approx((expected,) * 3), name
            continue
        assert ours == pytest.approx((case["monai_assd"], case["monai_hd95"], case["monai_hd"]), rel=1e-5), (
            name
        )
        assert found.assd_mm == pytest.approx(case["medpy_assd"], rel=1e-9), name
        assert found.hd_mm == pytest.approx(case["medpy_hd"], rel=1e-9), name
        assert found.nsd(1.0) == pytest.approx(case["monai_nsd_1mm"], rel=1e-5), name


def test_against_simpleitk():
    """The Hausdorff distance of solid masks, and directed distances read off a distance map."""
    a = ball((20, 30, 30), (9, 14, 15), 14, SPACING)
    b = ball((20, 30, 30), (10, 16, 14), 11, SPACING)
    images = []
    for mask in (a, b):
        image = sitk.GetImageFromArray(mask.astype(np.uint8))
        image.SetSpacing(SPACING[::-1])
        images.append(image)
    found = surface_distances(a, b, SPACING)
    edge = surface(b).astype(np.uint8)
    edge_image = sitk.GetImageFromArray(edge)
    edge_image.SetSpacing(SPACING[::-1])
    away = sitk.GetArrayFromImage(
        sitk.SignedMaurerDistanceMap(edge_image, squaredDistance=False, useImageSpacing=True)
    )
    assert np.sort(found.forward_mm) == pytest.approx(np.sort(np.maximum(away[surface(a)], 0)), abs=1e-4)
    hausdorff = sitk.HausdorffDistanceImageFilter()
    hausdorff.Execute(*images)
    # SimpleITK measures from every voxel of the mask to the other mask (not surface): for bodies that are
    # no shells, the farthest voxel lies on the surface, so the two agree.
    assert found.hd_mm == pytest.approx(hausdorff.GetHausdorffDistance(), rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(arrays(bool, (3, 4, 5)), arrays(bool, (3, 4, 5)), st.integers(0, 2))
def test_symmetric_bounded_and_never_nan(a, b, axis):
    one, two = surface_distances(a, b, SPACING), surface_distances(b, a, SPACING)
    for name in ("assd_mm", "hd95_mm", "hd_mm"):
        assert getattr(one, name) == pytest.approx(getattr(two, name))
        assert 0.0 <= getattr(one, name) <= penalty_mm("diag", a.shape, SPACING)
    assert one.hd95_mm <= one.hd_mm
    flipped = surface_distances(np.flip(a, axis), np.flip(b, axis), SPACING)
    assert flipped.assd_mm == pytest.approx(one.assd_mm)
    assert surface_distances(a, a, SPACING).hd_mm == 0.0
