"""PNG, JPEG and TIFF: depth, colours, palettes, stacks, pixel sizes."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from PIL import Image

from fewmask.core.errors import DataError
from fewmask.core.volume import Mask, Volume
from fewmask.data.io import read_grid, read_mask, read_volume, write_mask, write_volume

AFFINE = np.array([[-0.8, 0, 0, 90], [0, -0.8, 0, 110], [0, 0, 2.5, -300], [0, 0, 0, 1.0]])


@pytest.fixture
def volume() -> Volume:
    return Volume(np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6) - 60, AFFINE)


def _fails(path, *words, reader=read_volume, **options):
    """Reading fails with one message that holds the path's name and all `words`."""
    with pytest.raises(DataError) as caught:
        reader(path, **options)
    text = str(caught.value)
    for word in (path.name, *words):
        assert word in text, text


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pictures_keep_their_depth(tmp_path, suffix, dtype):
    pixels = np.linspace(0, np.iinfo(dtype).max, 42).astype(dtype).reshape(6, 7)
    path = tmp_path / f"a{suffix}"
    Image.fromarray(pixels).save(path)
    read = read_volume(path)
    assert read.voxels.dtype == dtype
    np.testing.assert_array_equal(read.voxels[0], pixels)
    assert read_grid(path).shape == read.shape == (1, 6, 7)


def test_deep_colour_png_keeps_16_bit(tmp_path):
    pixels = np.arange(4 * 5 * 3, dtype=np.uint16).reshape(4, 5, 3) * 1000
    sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(tmp_path / "a.png"))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.png", channel=2).voxels[0], pixels[..., 2])


def test_grey_saved_as_colour_is_grey(tmp_path):
    pixels = np.arange(30, dtype=np.uint8).reshape(5, 6)
    opaque = np.full_like(pixels, 255)
    Image.fromarray(np.stack([pixels] * 3, axis=-1)).save(tmp_path / "rgb.png")
    Image.fromarray(np.stack([pixels] * 3 + [opaque], axis=-1)).save(tmp_path / "rgba.png")
    Image.fromarray(np.stack([pixels, pixels], axis=-1), mode=None).save(tmp_path / "la.png")
    for name in ("rgb", "rgba", "la"):
        np.testing.assert_array_equal(read_volume(tmp_path / f"{name}.png").voxels[0], pixels)
    assert "transparency" in read_volume(tmp_path / "la.png").notes[0]
    Image.fromarray(np.full((8, 8), 77, np.uint8)).save(tmp_path / "a.jpg")
    assert abs(int(read_volume(tmp_path / "a.jpg").voxels[0, 4, 4]) - 77) <= 2


def test_palette_gives_colours_for_images_and_indices_for_masks(tmp_path):
    picture = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8)).convert("P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "p.png").voxels[0], [[0, 1], [2, 1]])
    np.testing.assert_array_equal(read_volume(tmp_path / "p.png", channel=0).voxels[0], [[0, 255], [0, 255]])


def test_a_tiff_stack_is_a_volume(tmp_path):
    pages = [Image.fromarray(np.full((4, 5), i, np.uint16)) for i in range(3)]
    pages[0].save(tmp_path / "s.tif", save_all=True, append_images=pages[1:])
    stack = read_volume(tmp_path / "s.tif")
    assert stack.shape == (3, 4, 5)
    np.testing.assert_array_equal(stack.voxels[:, 0, 0], [0, 1, 2])
    assert "3 pages were taken as slices" in stack.notes[-1]
    pages[0].save(tmp_path / "lzw.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(read_volume(tmp_path / "lzw.tif").voxels[0], np.zeros((4, 5)))
    pages[0].save(tmp_path / "u.tif", save_all=True, append_images=[Image.new("L", (9, 9))])
    _fails(tmp_path / "u.tif", "holds more than one volume", "one picture, or pages of one size")


def test_pixel_size_of_pictures(tmp_path):
    pixels = np.zeros((4, 5), np.uint8)
    for name, dpi in (("screen.png", 72), ("screen.tif", 300)):
        Image.fromarray(pixels).save(tmp_path / name, dpi=(dpi, dpi))
        assert read_volume(tmp_path / name).spacing_mm == (1, 1, 1)
        assert f"{dpi} dpi is a habit of programs" in read_volume(tmp_path / name).notes[0]
    path = write_volume(tmp_path / "film.png", Volume(pixels[None], np.diag([0.143, 0.143, 1, 1])))
    np.testing.assert_allclose(read_volume(path).spacing_mm, (1, 0.143, 0.143), rtol=1e-4)
    np.testing.assert_allclose(read_grid(path).affine, read_volume(path).affine)


def test_png_refuses_what_it_cannot_hold(tmp_path, volume):
    with pytest.raises(DataError, match="a PNG holds one slice"):
        write_volume(tmp_path / "a.png", volume)
    with pytest.raises(DataError, match="whole numbers from 0 to 65535"):
        write_volume(tmp_path / "a.png", Volume(volume.voxels[:1], AFFINE))
    with pytest.raises(DataError, match="Window the image"):
        write_volume(tmp_path / "a.png", Volume(np.full((1, 2, 2), 0.5), AFFINE))
    write_mask(tmp_path / "m.png", Mask(np.full((1, 2, 2), 300, np.uint16), np.eye(4)))
    assert read_mask(tmp_path / "m.png").voxels.max() == 300
