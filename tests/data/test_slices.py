import numpy as np
import pytest

from fewmask.core.errors import ConfigError, DataError, ShapeError
from fewmask.core.volume import Mask, Volume
from fewmask.data.case import Case
from fewmask.data.cohort import read_cohort
from fewmask.data.io import write_mask, write_volume
from fewmask.data.prepare import Preparation, prepare, prepare_mask, undo
from fewmask.data.slices import (
    SliceRef,
    from_slices,
    gather_slices,
    prepare_slices,
    select_slices,
    spread,
    to_slices,
    with_content,
    with_lung,
)

AFFINE = np.diag([-2.0, -2.0, 5.0, 1.0])


def chest(slices=6, lung_in=(2, 3, 4), body_in=(1, 2, 3, 4)):
    """A body in air, with lungs in some slices; the first and last slice are empty."""
    voxels = np.full((slices, 40, 40), -1000, np.int16)
    for z in body_in:
        voxels[z, 8:34, 6:36] = 40
    for z in lung_in:
        voxels[z, 14:28, 9:18] = -850
    return Volume(voxels, AFFINE)


def test_a_volume_survives_the_trip_over_slices():
    prepared = prepare({"image": chest()}, Preparation({"image": ("lung", "wide")}, size=(32, 32)))
    slices = to_slices(prepared.image)
    assert slices.shape == (6, 2, 32, 32)
    assert np.array_equal(from_slices(list(slices)), prepared.image)
    labels = np.arange(6 * 32 * 32).reshape(6, 32, 32) % 3
    assert np.array_equal(from_slices(list(labels)), labels)
    assert undo(from_slices(list(labels.astype(np.uint8))), prepared.trace).shape == (6, 40, 40)


def test_wrong_shapes_are_refused():
    with pytest.raises(ShapeError, match="four axes"):
        to_slices(np.zeros((3, 4, 5)))
    with pytest.raises(ShapeError, match="slices must be"):
        from_slices(np.zeros((3, 4)))


@pytest.mark.parametrize("window", ["wide", "lung", "percentile", "zscore"])
def test_empty_slices_are_dropped(window):
    scan = chest()
    if window in ("percentile", "zscore"):
        scan = Volume((scan.voxels.clip(-1000) + 1000).astype(np.uint16), AFFINE)
    prepared = prepare({"image": scan}, Preparation({"image": (window,)}, size=(32, 32)))
    assert np.flatnonzero(with_content(prepared)).tolist() == [1, 2, 3, 4]
    assert select_slices(prepared) == (1, 2, 3, 4)
    assert select_slices(prepared, None) == tuple(range(6))


@pytest.mark.parametrize("windows", [("wide",), ("lung",), ("soft_tissue", "bone")])
def test_slices_with_lung_are_found(windows):
    prepared = prepare({"image": chest()}, Preparation({"image": windows}, size=(32, 32)))
    assert np.flatnonzero(with_lung(prepared)).tolist() == [2, 3, 4]


def test_a_window_that_cannot_see_air_is_refused():
    prepared = prepare({"image": chest()}, Preparation({"image": ("soft_tissue",)}))
    with pytest.raises(ConfigError, match="tell lung from tissue"):
        with_lung(prepared)


def test_a_case_that_no_rule_keeps_is_kept_whole():
    prepared = prepare({"image": chest(lung_in=())}, Preparation())
    assert select_slices(prepared, with_lung) == tuple(range(6))


def test_spread_is_even_and_keeps_all_below_the_cap():
    assert spread(5, None).tolist() == spread(5, 9).tolist() == [0, 1, 2, 3, 4]
    assert spread(100, 4).tolist() == [12, 37, 62, 87]
    for count, cap in ((7, 3), (61, 60), (1000, 7)):
        chosen = spread(count, cap)
        assert len(set(chosen.tolist())) == cap
        assert np.ptp(np.diff(chosen)) <= 1


@pytest.fixture
def cohort(tmp_path):
    for n in range(3):
        labels = (chest().voxels == -850).astype(np.uint8)
        write_volume(tmp_path / f"images/c{n}.nii.gz", chest())
        write_mask(tmp_path / f"masks/c{n}.nii.gz", Mask(labels, AFFINE))
    (tmp_path / "classes.json").write_text('{"lung": 1}')
    (tmp_path / "index.csv").write_text("file,patient\nc0,a\nc1,b\nc2,a\n")
    return read_cohort(tmp_path)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_cohort_becomes_one_array(cohort, streamed, tmp_path):
    how = Preparation({"image": ("lung", "wide")}, size=(24, 24))
    folder = tmp_path / "arrays" if streamed else None
    made = prepare_slices(cohort.cases, cohort, how, masks=True, cap=5, dtype=np.float32, folder=folder)
    assert made.images.shape == (9, 2, 24, 24)
    assert made.patients == ("a",) * 5 + ("b",) * 4
    assert isinstance(made.images, np.memmap) == streamed
    for n, ref in enumerate(made.refs):
        prepared = prepare({"image": chest()}, how)
        assert np.array_equal(made.images[n], prepared.image[:, ref.z])
        labels = (chest().voxels == -850).astype(np.uint8)
        assert np.array_equal(made.masks[n], prepare_mask(Mask(labels, AFFINE), prepared.trace)[ref.z])
    assert [ref for ref in made.refs if ref.case == "c1"] == [SliceRef("c1", z) for z in (1, 2, 3, 4)]
    assert set(made.traces) == {"c0", "c1", "c2"}


def test_many_chunks_stream_into_one_file(tmp_path):
    cases = [Case(f"c{n}", f"p{n}", {}) for n in range(120)]
    prepared = prepare({"image": chest()}, Preparation(size=(8, 8)))
    made = gather_slices(cases, lambda case: (prepared, None), folder=tmp_path)
    assert made.images.shape == (480, 1, 8, 8)
    assert made.images.dtype == np.float16
    assert made.masks is None
    assert np.array_equal(made.images[-1], to_slices(prepared.image)[4].astype(np.float16))


def test_what_cannot_become_one_array_is_refused(cohort):
    with pytest.raises(ConfigError, match="need one size"):
        prepare_slices(cohort.cases, cohort, Preparation(), masks=False)
    with pytest.raises(DataError, match="no slice"):
        prepare_slices([], cohort, Preparation(size=(8, 8)), masks=False)
