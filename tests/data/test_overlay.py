"""Overlays: colours where the labels are, nothing elsewhere; montages of the right size."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewmask.core.errors import RunError, ShapeError
from fewmask.data.overlay import (
    COLOURS,
    UNJUDGED,
    beside,
    colour_of,
    contact_sheet,
    grey_picture,
    montage,
    overlay,
    png_bytes,
    save_png,
    with_legend,
)

RAMP = np.tile(np.linspace(-1000, 1000, 20), (16, 1))


def test_grey_window_and_values_that_are_no_numbers() -> None:
    image = RAMP.copy()
    image[0, 0] = np.nan
    grey = grey_picture(image, window=(-500, 500))
    assert grey.shape == (16, 20, 3)
    assert grey.dtype == np.uint8
    assert grey[0, 0].tolist() == [0, 0, 0]
    assert (grey[1, 0, 0], grey[1, -1, 0]) == (0, 255)
    automatic = grey_picture(image)
    assert (automatic.min(), automatic.max()) == (0, 255)
    assert grey_picture(np.full((4, 4), 7, np.uint8)).max() == 0
    assert grey_picture(np.full((4, 4), np.nan)).max() == 0
    sparse = np.zeros((40, 40), np.uint8)
    sparse[3, 3] = 9
    assert grey_picture(sparse)[3, 3, 0] == 255
    with pytest.raises(ShapeError, match=r"\(Y, X\)"):
        grey_picture(np.zeros((2, 3, 4)))


def test_outline_fill_and_free_background() -> None:
    labels = np.zeros((16, 20), np.uint8)
    labels[4:10, 4:10] = 1
    labels[12:15, 12:15] = 255
    plain, drawn = grey_picture(RAMP), overlay(RAMP, labels)
    assert (drawn[labels == 0] == plain[labels == 0]).all()
    assert tuple(drawn[4, 4]) == COLOURS[0]
    assert tuple(drawn[6, 6]) != COLOURS[0]
    assert (drawn[6, 6] != plain[6, 6]).any()
    assert not (drawn[labels == 255] == UNJUDGED).all(axis=-1).any()
    without = overlay(RAMP, labels, outline=False, fill=0.0)
    assert (without == plain).all()


def test_a_label_at_the_frame_has_no_line_along_the_frame() -> None:
    labels = np.ones((16, 20), np.uint8)
    assert not (overlay(RAMP, labels) == COLOURS[0]).all(axis=-1).any()


def test_enlarged_before_drawing() -> None:
    labels = np.zeros((16, 20), np.uint8)
    labels[4:10, 4:10] = 2
    drawn = overlay(RAMP, labels, size=(160, 200))
    assert drawn.shape == (160, 200, 3)
    line = (drawn == COLOURS[1]).all(axis=-1)
    assert line[45:95].any(axis=1).all()
    assert line[70].sum() == 2  # one pixel wide on either side


def test_shapes_must_agree() -> None:
    with pytest.raises(ShapeError, match="one shape"):
        overlay(RAMP, np.zeros((3, 3), np.uint8))


def test_colours_differ_and_repeat() -> None:
    assert len(set(COLOURS)) == len(COLOURS)
    assert colour_of(1) == colour_of(1 + len(COLOURS))
    assert colour_of(255) == UNJUDGED


def test_montage_beside_and_legend(tmp_path: Path) -> None:
    labels = np.zeros((16, 20), np.uint8)
    small, large = overlay(RAMP, labels), overlay(RAMP, labels, size=(64, 80))
    sheet = montage([small, large, small], columns=2, titles=["a", "a very long title that cannot fit", "c"])
    assert sheet.shape == (2 * (64 + 19 + 6) + 6, 2 * (80 + 6) + 6, 3)
    assert montage([small], columns=5).shape == (16 + 12, 20 + 12, 3)
    assert beside(RAMP, labels, labels, size=(64, 80)).shape[1] == 3 * 86 + 6
    legend = with_legend(sheet, {"left lung": 1, "right lung": 2, "heart": 3})
    assert legend.shape[1] == sheet.shape[1]
    assert (legend == COLOURS[2]).all(axis=-1).any()
    assert (legend[: sheet.shape[0]] == sheet).all()
    path = save_png(tmp_path / "deep" / "sheet.png", legend)
    assert (np.asarray(Image.open(path)) == legend).all()
    with pytest.raises(ShapeError, match="montage"):
        montage([small], columns=1, titles=["a", "b"])
    with pytest.raises(ShapeError, match="montage"):
        montage([], columns=1)


def test_a_picture_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError):
        save_png(tmp_path / "file" / "x.png", np.zeros((4, 4, 3), np.uint8))


def test_a_contact_sheet_holds_every_slice_in_reading_order():
    images = np.linspace(-1, 1, 5)[:, None, None, None] * np.ones((5, 1, 2, 3))
    sheet = contact_sheet(images, columns=2, zoom=2)
    assert sheet.shape == (3 * 4, 2 * 6, 3)
    assert [int(sheet[y, x, 0]) for y in (0, 4, 8) for x in (0, 6)] == [0, 64, 128, 191, 255, 0]
    colours = contact_sheet(np.stack([np.full((2, 2), v) for v in (-1.0, 0.0, 1.0)])[None])
    assert colours[0, 0].tolist() == [0, 128, 255]
    assert png_bytes(colours).startswith(b"\x89PNG")
    with pytest.raises(ShapeError, match="a sheet is drawn of slices"):
        contact_sheet(images[:0])
