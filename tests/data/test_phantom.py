from itertools import pairwise

import numpy as np
import pytest

from fewmask.core.errors import ConfigError, RunError
from fewmask.data.case_voxels import read_case_mask, read_images
from fewmask.data.check import check_cohort
from fewmask.data.cohort import read_cohort
from fewmask.data.phantom import CLASSES, View, draw_patient, render, scan, write_phantom
from fewmask.data.phantom_draw import LABELS
from fewmask.data.phantom_patient import Nodule


@pytest.mark.parametrize(("size", "slices"), [(32, 1), (64, 8), (256, 3), (48, 40)])
def test_shapes_units_and_grid(size, slices):
    view = View(size, slices)
    rendered = render(draw_patient(0, 0, view=view), view)
    assert rendered.ideal.shape == rendered.labels.shape == (slices, size, size)
    assert rendered.ideal.dtype == np.float32
    assert rendered.labels.dtype == np.uint8
    assert rendered.ideal.min() >= -1000
    assert rendered.ideal.max() < 1500
    volume = scan(rendered, view, seed=0, number=0)
    assert volume.voxels.dtype == np.int16
    assert volume.spacing_mm == pytest.approx((view.thickness_mm, 400 / size, 400 / size))
    # The middle of the picture is the middle of the patient.
    assert volume.grid.to_mm([(size - 1) / 2, (size - 1) / 2, 0])[:2] == pytest.approx([0, 0])


def test_the_same_numbers_draw_the_same_patient_and_others_another():
    view = View(64, 4)
    first, again, other = (render(draw_patient(seed, 3, view=view), view) for seed in (1, 1, 2))
    assert np.array_equal(first.ideal, again.ideal)
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.labels, other.labels)


def test_the_anatomy_is_where_it_belongs():
    view = View(128, 24)
    places = view.places
    z, y, x = (np.broadcast_to(c, (24, 128, 128)) for c in (places.z, places.y, places.x))
    for number in range(6):
        rendered = render(draw_patient(0, number, view=view, lesions=()), view)
        at = {name: rendered.labels == label for name, label in LABELS.items()}
        assert x[at["left_lung"]].mean() > 40  # the patient's left is on the right of the picture
        assert x[at["right_lung"]].mean() < -40
        assert 0 < x[at["heart"]].mean() < 50  # a little to the left, in front, low
        assert y[at["heart"]].mean() < y[at["spinal_canal"]].mean() - 60
        assert z[at["heart"]].mean() < -30
        assert abs(x[at["spinal_canal"]].mean()) < 2
        assert y[at["oesophagus"]].mean() < y[at["spinal_canal"]].mean()
        lung_ml = (
            (at["left_lung"] | at["right_lung"]).sum()
            * np.prod((view.thickness_mm, *[view.pixel_mm] * 2))
            / 1000
        )
        assert 1500 < lung_ml < 7500
        assert 300 < at["heart"].sum() * view.thickness_mm * view.pixel_mm**2 / 1000 < 1300
        assert rendered.ideal[at["left_lung"]].mean() < -700
        assert -100 < rendered.ideal[at["heart"]].mean() < 250


def test_slices_drift_smoothly():
    view = View(64, 24)
    labels = render(draw_patient(0, 1, view=view, lesions=()), view).labels
    changed = [(a != b).mean() for a, b in pairwise(labels)]
    assert 0 < max(changed) < 0.12


def test_about_half_the_patients_are_diseased_and_their_nodules_are_seen():
    view = View(64, 8)
    patients = [draw_patient(0, number, view=view) for number in range(60)]
    diseased = [patient for patient in patients if patient.diseased]
    assert 20 <= len(diseased) <= 40
    for patient in diseased[:12]:
        rendered = render(patient, view)
        nodule = rendered.labels == LABELS["nodule"]
        assert nodule.any()
        organs = rendered.organs[nodule]
        assert np.isin(organs, (LABELS["left_lung"], LABELS["right_lung"])).mean() > 0.5
        assert rendered.ideal[nodule].mean() > -500
    healthy = next(patient for patient in patients if not patient.diseased)
    assert not np.isin(render(healthy, view).labels, (LABELS["nodule"], LABELS["opacity"])).any()


def test_a_nodule_is_a_ball_with_partial_volume():
    view = View(256, 16)
    patient = next(p for p in (draw_patient(0, n, view=view) for n in range(20)) if p.diseased)
    rendered = render(patient, view)
    truth = sum(4 / 3 * np.pi * n.radius**3 for n in patient.lesions if isinstance(n, Nodule))
    drawn = (rendered.labels == LABELS["nodule"]).sum() * view.thickness_mm * view.pixel_mm**2
    assert drawn == pytest.approx(truth, rel=0.35)


def test_opacities_are_drawn_in_the_lung_only():
    view = View(64, 8)
    patients = (draw_patient(0, n, view=view, lesions=("opacity",)) for n in range(20))
    rendered = render(next(p for p in patients if p.diseased), view)
    cloud = rendered.labels == LABELS["opacity"]
    assert cloud.sum() > 50
    assert np.isin(rendered.organs[cloud], (1, 2)).all()
    lung = np.isin(rendered.labels, (1, 2))
    assert rendered.ideal[cloud].mean() > rendered.ideal[lung].mean() + 150


def test_lesion_contrast_is_not_monotone_between_the_modalities():
    view = View(128, 8)
    patient = next(p for p in (draw_patient(0, n, view=view) for n in range(20)) if p.diseased)
    a, b = (render(patient, view, modality=modality) for modality in "AB")
    assert np.array_equal(a.labels, b.labels)

    def means(rendered):
        parts = (("nodule", 4), ("lung", 1), ("heart", 3))
        return {name: rendered.ideal[rendered.labels == label].mean() for name, label in parts}

    in_a, in_b = means(a), means(b)
    spread = {m: (v["nodule"] - v["lung"]) / (v["heart"] - v["lung"]) for m, v in (("A", in_a), ("B", in_b))}
    assert spread["A"] > 0.6
    assert 0.1 < spread["B"] < spread["A"]


def test_classes_left_out_become_what_lies_under_them():
    view = View(64, 8)
    patient = next(p for p in (draw_patient(0, n, view=view) for n in range(20)) if p.diseased)
    rendered = render(patient, view)
    assert set(np.unique(rendered.classes(CLASSES))) == {0, 1, 2, 3, 4}
    lungs = rendered.classes({"left_lung": 7, "right_lung": 7})
    assert np.array_equal(lungs == 7, np.isin(rendered.organs, (1, 2)) & ~np.isin(rendered.labels, (3, 8)))


@pytest.mark.parametrize("modality", ["A", "B"])
def test_a_phantom_on_disk_is_a_sound_cohort(tmp_path, modality):
    folder = write_phantom(
        tmp_path / "c",
        patients=6,
        size=32,
        slices=3,
        labelled=4,
        modality=modality,
        style=("white", "streak"),
    )
    cohort = read_cohort(folder)
    check_cohort(cohort, pictures=None).raise_if_faulty()
    assert dict(cohort.classes) == dict(CLASSES)
    assert len(cohort.cases) == len(cohort.patients) == 6
    assert len(cohort.labelled) == 4
    assert {case.tags["site"] for case in cohort.cases} == {"white", "streak"}
    view = View(32, 3)
    for number, case in enumerate(cohort.cases):
        patient = draw_patient(0, number, view=view)
        rendered = render(patient, view, modality=modality)
        image = read_images(case)["image"]
        assert case.tags["state"] == ("diseased" if patient.diseased else "healthy")
        wanted = scan(rendered, view, seed=0, number=number, modality=modality, style=case.tags["site"])
        assert np.array_equal(image.voxels, wanted.voxels)
        assert np.allclose(image.affine, view.affine)
        if case in cohort.labelled:
            assert np.array_equal(read_case_mask(case, cohort).voxels, rendered.classes(CLASSES))


def test_a_phantom_of_pictures(tmp_path):
    cohort = read_cohort(write_phantom(tmp_path / "c", patients=2, size=32, slices=3, volumes=False))
    assert len(cohort.cases) == 6
    assert cohort.patients == ("p000", "p001")
    image, mask = read_images(cohort.cases[0])["image"], read_case_mask(cohort.cases[0], cohort)
    assert image.voxels.dtype == np.uint8
    assert image.shape == mask.shape == (1, 32, 32)
    assert image.spacing_mm[1:] == pytest.approx((12.5, 12.5), rel=1e-3)


def test_readers_draw_their_own_masks(tmp_path):
    folder = write_phantom(tmp_path / "c", patients=2, size=64, slices=4, readers=4)
    cohort = read_cohort(folder)
    assert cohort.readers == ("reader1", "reader2", "reader3", "reader4", "reference")
    assert cohort.reader == "reference"
    masks = [read_case_mask(cohort.cases[0], cohort, reader=reader).voxels for reader in cohort.readers]
    for mask in masks[:4]:
        lung = (mask == 1) & (masks[4] == 1)
        assert 0.85 < 2 * lung.sum() / ((mask == 1).sum() + (masks[4] == 1).sum()) < 1
    assert len({mask.tobytes() for mask in masks}) == 5


def test_writing_again_changes_nothing_and_other_settings_are_refused(tmp_path):
    folder = write_phantom(tmp_path / "c", patients=2, size=32, slices=2)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert write_phantom(folder, patients=2, size=32, slices=2) == folder
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(RunError, match=r"other settings \(patients"):
        write_phantom(folder, patients=3, size=32, slices=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 8}, "size 16 to 512"),
        ({"slices": 0}, "at least 1 slice"),
        ({"modality": "C"}, "no modality 'C'"),
        ({"style": "loud"}, "no style 'loud'"),
        ({"classes": {"liver": 1}}, "no class 'liver'"),
        ({"lesions": ("crack",)}, "no lesion 'crack'"),
        ({"patients": 0}, "at least one patient"),
        ({"labelled": 30}, "at most 24"),
    ],
)
def test_what_the_phantom_does_not_know_is_named(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        write_phantom(tmp_path / "c", **settings)
