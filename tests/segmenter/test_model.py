import json

import pytest
import torch

from fewmask.core.errors import ConfigError, DataError, RunError
from fewmask.core.run import ModelFolder
from fewmask.data.prepare import Preparation
from fewmask.segmenter.model import Design, Segmenter

DESIGN = Design(
    classes={"lung": 3, "heart": 1},
    preparation=Preparation(channels={"image": ("film",)}, size=(16, 16)),
    patch=(16, 16),
    widths=(4, 8),
    flips=("x",),
    may_be_absent=("heart",),
    about={"arm": "unet", "shots": 3},
)


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    segmenter = Segmenter(DESIGN.build().eval(), DESIGN)
    segmenter.save(tmp_path / "model")
    return segmenter, ModelFolder(tmp_path / "model")


def test_what_is_saved_is_loaded(saved):
    segmenter, files = saved
    loaded = Segmenter.load(files.folder)
    assert loaded.design == segmenter.design
    assert loaded.design.labels == (0, 3, 1)
    assert not loaded.network.training
    image = torch.randn(1, 1, 16, 16)
    assert torch.equal(loaded.network(image), segmenter.network(image))
    assert not any(p.requires_grad for p in loaded.network.parameters())


def test_loading_draws_nothing_from_the_global_generator(saved):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    Segmenter.load(saved[1].folder)
    assert torch.equal(torch.rand(1), expected)


def test_files_are_the_same_byte_for_byte(saved, tmp_path):
    _, files = saved
    Segmenter.load(files.folder).save(tmp_path / "again")
    again = ModelFolder(tmp_path / "again")
    assert again.weights.read_bytes() == files.weights.read_bytes()
    assert again.model_json.read_bytes() == files.model_json.read_bytes()


def change(files, **values):
    told = json.loads(files.model_json.read_text())
    files.model_json.write_text(json.dumps({**told, **values}))


def test_missing_and_damaged_models_are_told(saved, tmp_path):
    _, files = saved
    with pytest.raises(DataError, match="there is no such model"):
        Segmenter.load(tmp_path / "nowhere")
    weights = files.weights.read_bytes()
    files.weights.write_bytes(weights[:-8])
    with pytest.raises(DataError, match="not the ones this model was saved with"):
        Segmenter.load(files.folder)
    files.weights.unlink()
    with pytest.raises(DataError, match=r"lacks a file[\s\S]*model\.safetensors"):
        Segmenter.load(files.folder)
    files.weights.write_bytes(weights)
    files.model_json.write_text("{")
    with pytest.raises(RunError, match="not readable JSON"):
        Segmenter.load(files.folder)


def test_models_of_another_format_or_design_are_told(saved):
    _, files = saved
    change(files, widths=[4, 16])
    with pytest.raises(DataError, match="belong to another network"):
        Segmenter.load(files.folder)
    change(files, patch=[15, 16], widths=[4, 8])
    with pytest.raises(DataError, match=r"description of the model is damaged[\s\S]*multiples of 2"):
        Segmenter.load(files.folder)
    change(files, format="fewmask segmenter 9")
    with pytest.raises(DataError, match=r"this version of fewmask can read[\s\S]*segmenter 9"):
        Segmenter.load(files.folder)
    files.model_json.write_text("[]")
    with pytest.raises(DataError, match="this version of fewmask can read"):
        Segmenter.load(files.folder)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"classes": {}}, "classes with different label values"),
        ({"classes": {"a": 1, "b": 1}}, "classes with different label values"),
        ({"classes": {"a": 255}}, "classes with different label values"),
        ({"patch": (8, 16, 16)}, "needs a 2-D patch"),
        ({"patch": (15, 16)}, "multiples"),
        ({"flips": ("z",)}, "unknown flips"),
        ({"may_be_absent": ("liver",)}, "unknown may_be_absent"),
    ],
)
def test_parts_that_do_not_fit_are_refused(settings, words):
    whole = {name: getattr(DESIGN, name) for name in ("classes", "preparation", "patch", "widths")}
    with pytest.raises(ConfigError, match=words):
        Design(**{**whole, **settings})


def test_channels_of_pictures_are_remembered(tmp_path):
    how = Preparation(channels={"t1": ("zscore",), "flair": ("zscore",)}, size=(16, 16))
    design = Design({"x": 1}, how, (16, 16), (4, 8), picture_channels={"t1": 0, "flair": 2})
    folder = Segmenter(design.build().eval(), design).save(tmp_path / "model")
    assert Segmenter.load(folder).design.picture_channels == {"t1": 0, "flair": 2}
    with pytest.raises(ConfigError, match="picture_channels"):
        Design({"x": 1}, how, (16, 16), (4, 8), picture_channels={"t2": 0})
