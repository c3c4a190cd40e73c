"""Pictures and lines."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewmask.core.errors import RunError
from fewmask.training.log import Log, duration, save_grid


def test_the_grid_keeps_order_range_and_colour(tmp_path: Path) -> None:
    values = torch.tensor([-1.0, -0.5, 0.0, 1.0, 3.0])
    images = values.view(5, 1, 1, 1).expand(5, 1, 2, 3)
    grey = np.asarray(Image.open(save_grid(tmp_path / "grey.png", images)))
    assert grey.shape == (4, 9)
    assert grey[::2, ::3].tolist() == [[0, 64, 128], [255, 255, 0]]
    colour = np.asarray(Image.open(save_grid(tmp_path / "rgb.png", images.expand(5, 3, 2, 3), columns=5)))
    assert colour.shape == (2, 15, 3)
    windows = np.asarray(Image.open(save_grid(tmp_path / "two.png", images.expand(5, 2, 2, 3), columns=1)))
    assert windows.shape == (10, 3), "of other channel counts the first is shown"


def test_lines_beyond_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"images": 4}\n{"images": 8}\n{"images": 12}\n{"ima')
    cpu = torch.device("cpu")
    with Log(path, label="x", images=16, images_seen=8, active=True, device=cpu) as log:
        assert path.read_text() == '{"images": 4}\n{"images": 8}\n'
        log.report(12, 1.0, {"loss": 2.0})
    assert '"loss": 2.0' in path.read_text().splitlines()[-1]


def test_a_log_that_cannot_be_written_is_a_run_error(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    log = Log(path, label="x", images=16, images_seen=0, active=True, device=torch.device("cpu"))
    path.mkdir()
    with log, pytest.raises(RunError):
        log.report(4, 1.0, {"loss": 2.0})


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (61.4, "0:01:01"), (36_000, "10:00:00"), (-3, "0:00:00")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
