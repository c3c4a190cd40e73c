"""Samples go out, a person draws, masks come back: on the right image, with the right latents."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fewmask.core.errors import ConfigError, DataError, RunError
from fewmask.core.volume import IGNORE, Mask, Volume
from fewmask.data.check import check_cohort
from fewmask.data.cohort import read_cohort
from fewmask.data.io import read_volume, write_mask, write_volume
from fewmask.networks.stylegan2 import Generator
from fewmask.synthesis import support
from fewmask.synthesis.support import export_support, read_support

CLASSES = {"dark": 1, "bright": 2}
SUFFIX = {"png": ".png", "nifti": ".nii.gz"}


def export(folder: Path, generator, count=3, **how) -> tuple[str, ...]:
    return export_support(folder, generator, count, key="of this generator", seed=3, **how)


def drawn(folder: Path, name: str) -> tuple[Path, Volume, np.ndarray]:
    """What a person sees and draws: the brightest tenth and the darkest tenth, one pixel unjudged."""
    path = next((folder / "images").glob(f"{name}.*"))
    seen = read_volume(path)
    low, high = np.percentile(seen.voxels, (10, 90))
    labels = (seen.voxels < low).astype(np.uint8) + 2 * (seen.voxels > high).astype(np.uint8)
    labels[0, 0, 0] = IGNORE
    return path, seen, labels


def draw(folder: Path, name: str) -> np.ndarray:
    path, seen, labels = drawn(folder, name)
    write_mask(folder / "masks" / path.name, Mask(labels, seen.affine))
    return labels[0]


@pytest.mark.parametrize("image_format", ["png", "nifti"])
def test_what_is_drawn_comes_back_with_image_and_latents(generator, tmp_path, image_format) -> None:
    names = export(tmp_path, generator, image_format=image_format, classes=CLASSES)
    assert names == ("sample_0000", "sample_0001", "sample_0002")
    assert not list((tmp_path / "masks").iterdir())
    labels = {name: draw(tmp_path, name) for name in names[::-2]}
    found = read_support(tmp_path)
    assert found.names == (names[0], names[2])
    assert found.missing == (names[1],)
    assert found.classes == CLASSES
    assert found.generator == "of this generator"
    assert np.array_equal(found.masks, np.stack([labels[name] for name in found.names]))
    again = generator.synthesis(torch.from_numpy(found.ws), noise="constant").clamp(-1, 1).numpy()
    assert np.allclose(found.images, again, atol=1e-5)
    steps = 255 if image_format == "png" else 4095
    for name, image in zip(found.names, found.images, strict=True):
        seen = read_volume(tmp_path / "images" / f"{name}{SUFFIX[image_format]}")
        assert np.abs(seen.voxels[0] / steps * 2 - 1 - image[0]).max() <= 1.001 / steps
        assert seen.voxels.std() > 0
    assert not check_cohort(read_cohort(tmp_path)).faults


def test_masks_of_one_class_each_and_of_another_program(generator, tmp_path) -> None:
    """Painted white on black in folders by class, which decide the classes; and a volume turned to RAS."""
    names = export(tmp_path, generator, 1)
    _, seen, labels = drawn(tmp_path, names[0])
    for name, value in CLASSES.items():
        white = Mask(((labels == value) * 255).astype(np.uint8), seen.affine)
        write_mask(tmp_path / "masks" / name / f"{names[0]}.png", white)
    found = read_support(tmp_path, classes=CLASSES)
    assert np.array_equal(found.masks[0], np.where(labels == IGNORE, 0, labels)[0])
    assert read_support(tmp_path).classes == {"bright": 1, "dark": 2}

    other = tmp_path / "nifti"
    export(other, generator, 1, image_format="nifti", classes=CLASSES)
    path, seen, labels = drawn(other, names[0])
    _, y, x = seen.shape
    turned = seen.affine @ np.array([[-1, 0, 0, x - 1], [0, -1, 0, y - 1], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    write_mask(other / "masks" / path.name, Mask(labels[:, ::-1, ::-1].copy(), turned))
    assert np.array_equal(read_support(other).masks[0], labels[0])


def test_labelme_leaves_its_mask_in_a_folder_of_the_image(generator, tmp_path) -> None:
    (name,) = export(tmp_path, generator, 1, classes=CLASSES)
    _, seen, labels = drawn(tmp_path, name)
    write_mask(tmp_path / "masks" / name / "label.png", Mask(labels, seen.affine))
    assert np.array_equal(read_support(tmp_path).masks[0], labels[0])
    assert f"masks/{name}/label.png" in (tmp_path / "README.txt").read_text()


def test_samples_follow_from_the_seed_and_truncation_makes_them_usual(generator, tmp_path) -> None:
    export(tmp_path / "a", generator)
    export(tmp_path / "b", generator, 5)
    export(tmp_path / "c", generator, truncation=0.0)
    name = "images/sample_0002.png"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    flat = {path.read_bytes() for path in (tmp_path / "c" / "images").iterdir()}
    assert len(flat) == 1
    assert (tmp_path / "a" / "overview.png").stat().st_size > 100
    assert "masks/sample_0000.png" in (tmp_path / "a" / "README.txt").read_text()


def test_by_coverage_the_samples_stand_for_what_the_generator_draws(generator, tmp_path) -> None:
    def far(folder) -> float:
        """Mean distance of the latents of many images to the nearest sample's."""
        for name in ("sample_0000", "sample_0001", "sample_0002"):
            draw(folder, name)
        ws = read_support(folder, classes=CLASSES).ws[:, 0]
        z = torch.randn(500, 8, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            many = generator.mapping(z)[:, 0].numpy()
        return float(np.linalg.norm(many[:, None] - ws, axis=2).min(axis=1).mean())

    export(tmp_path / "coverage", generator, choose="coverage", truncation=1.0)
    random = []
    for seed in range(4):
        export_support(tmp_path / f"{seed}", generator, 3, key="", seed=seed, truncation=1.0)
        random.append(far(tmp_path / f"{seed}"))
    assert far(tmp_path / "coverage") < min(random)


def test_several_channels_are_all_shown_and_all_come_back(tmp_path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        colour = Generator(8, 8, 16, 3, channel_base=128, channel_max=8, mapping_layers=2).eval()
    export(tmp_path, colour, 2)
    assert len(list((tmp_path / "channels").iterdir())) == 6
    draw(tmp_path, "sample_0001")
    found = read_support(tmp_path, classes=CLASSES)
    assert found.images.shape == (1, 3, 16, 16)
    assert "channels/" in (tmp_path / "README.txt").read_text()


def test_the_same_again_does_nothing_and_other_samples_are_refused(generator, tmp_path) -> None:
    folder = tmp_path / "a"
    export(folder, generator)
    draw(folder, "sample_0000")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    export(folder, generator)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    with pytest.raises(ConfigError, match="another truncation"):
        export(folder, generator, truncation=0.5)
    (folder / support.SUPPORT_JSON).unlink()  # stopped before the end
    export(folder, generator)
    assert read_support(folder, classes=CLASSES).names == ("sample_0000",)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files"):
        export(other, generator)


@pytest.fixture(scope="module")
def ready(generator, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("support") / "a"
    export(folder, generator, classes=CLASSES)
    draw(folder, "sample_0001")
    return folder


def _no_mask(folder: Path) -> None:
    (folder / "masks" / "sample_0001.png").unlink()


def _wrong_size(folder: Path) -> None:
    write_mask(folder / "masks" / "sample_0000.png", Mask(np.ones((1, 32, 32), np.uint8), np.eye(4)))


def _strange_label(folder: Path) -> None:
    write_mask(folder / "masks" / "sample_0000.png", Mask(np.full((1, 16, 16), 7, np.uint8), np.eye(4)))


def _no_image_of_it(folder: Path) -> None:
    write_mask(folder / "masks" / "sample_9.png", Mask(np.ones((1, 16, 16), np.uint8), np.eye(4)))


def _own_image(folder: Path) -> None:
    write_volume(folder / "images" / "mine.png", Volume(np.ones((1, 16, 16), np.uint8), np.eye(4)))


def _image_changed(folder: Path) -> None:
    path = folder / "images" / "sample_0001.png"
    old = read_volume(path)
    write_volume(path, Volume(old.voxels[:, ::-1].copy(), old.affine))


def _other_latents(folder: Path) -> None:
    path = folder / support.SAMPLES
    path.write_bytes(path.read_bytes()[:-4] + b"0000")


def _torn_json(folder: Path) -> None:
    (folder / support.SUPPORT_JSON).write_text("{")


def _old_json(folder: Path) -> None:
    (folder / support.SUPPORT_JSON).write_text(json.dumps({"format": 0}))


def _no_json(folder: Path) -> None:
    (folder / support.SUPPORT_JSON).unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_no_mask, "nobody has labelled"),
        (_wrong_size, "does not lie on its image"),
        (_strange_label, "nobody declared"),
        (_no_image_of_it, "mask without image"),
        (_own_image, "no samples"),
        (_image_changed, "not the one that was written"),
        (_other_latents, "not those of these samples"),
        (_torn_json, "cannot be read"),
        (_old_json, "another format"),
        (_no_json, "no samples to label"),
    ],
)
def test_what_cannot_be_taken_is_refused_in_words(ready: Path, tmp_path: Path, spoil, said) -> None:
    folder = Path(shutil.copytree(ready, tmp_path / "copy"))
    spoil(folder)
    with pytest.raises(DataError, match=said):
        read_support(folder)


def test_a_write_that_stops_half_way_is_told_and_the_same_again_completes(
    generator, tmp_path, files_of_at_most
) -> None:
    with files_of_at_most(2000), pytest.raises(RunError, match="File too large"):
        export(tmp_path, generator)
    assert not list(tmp_path.iterdir())
    assert export(tmp_path, generator) == ("sample_0000", "sample_0001", "sample_0002")


def test_numbers_out_of_range(generator, tmp_path) -> None:
    for wrong in ({"count": 0}, {"count": 1001}, {"truncation": 1.5}, {"classes": {"a": 3}}):
        with pytest.raises(ConfigError):
            export(tmp_path / "x", generator, **wrong)
    conditional = Generator(8, 8, 16, 1, channel_base=128, channel_max=8, mapping_layers=2, classes=2)
    with pytest.raises(ConfigError, match="with classes"):
        export(tmp_path / "x", conditional)
    assert not (tmp_path / "x").exists()
