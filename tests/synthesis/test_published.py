"""Published checkpoints become networks of ours, and what ours cannot do is refused in words."""

import pickle
import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from fewmask.core.errors import DataError
from fewmask.data.pickled import PickledObject, read_pickled
from fewmask.synthesis.keep import read_generator
from fewmask.synthesis.published import (
    arguments_of,
    arrays_of,
    discriminator_from,
    generator_from,
    import_published,
    read_published,
    with_channels,
)
from fewmask.synthesis.published_settings import WHOLE_BATCH, discriminator_settings, generator_settings

OFFICIAL = ("sg2_official", "sg3t_official")
SMALL = {"z_dim": 4, "c_dim": 0, "w_dim": 4, "img_resolution": 16, "img_channels": 3}


@pytest.fixture
def write(monkeypatch, tmp_path):
    """Writes a snapshot in the published layout, with networks given as `PickledObject`s."""
    module = ModuleType("torch_utils.persistence")
    exec("def _reconstruct_persistent_obj(meta): raise SystemExit", module.__dict__)
    module._reconstruct_persistent_obj.__module__ = module.__name__
    monkeypatch.setitem(sys.modules, "torch_utils", ModuleType("torch_utils"))
    monkeypatch.setitem(sys.modules, module.__name__, module)

    class Published:
        def __init__(self, thing):
            self.thing = thing

        def __reduce__(self):
            meta = {"type": "class", "version": 6, "module_src": "raise SystemExit"}
            meta |= {"class_name": self.thing.class_name, "state": published(self.thing.state)}
            return module._reconstruct_persistent_obj, (meta,)

    def published(value):
        if isinstance(value, PickledObject):
            return Published(value)
        if isinstance(value, dict):
            return {key: published(item) for key, item in value.items()}
        return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

    def to_file(snapshot):
        path = tmp_path / "snapshot.pkl"
        path.write_bytes(pickle.dumps(published(snapshot), 3))
        return path

    return to_file


def part(network, *names):
    for name in names:
        network = network.state["_modules"][name]
    return network


def coloured(snapshot):
    """A grey snapshot of StyleGAN2 as one of three channels, each with weights of its own."""
    chance = np.random.default_rng(0)
    for name in ("G", "G_ema"):
        network = snapshot[name]
        network.state["_init_kwargs"]["img_channels"] = 3
        for block in network.state["_modules"]["synthesis"].state["_modules"].values():
            values = block.state["_modules"]["torgb"].state["_parameters"]
            shape = (3, *values["weight"].shape[1:])
            values["weight"] = chance.standard_normal(shape).astype("f4")
            values["bias"] = chance.standard_normal(3).astype("f4")
    snapshot["D"].state["_init_kwargs"]["img_channels"] = 3
    values = part(snapshot["D"], "b32", "fromrgb").state["_parameters"]
    shape = (len(values["weight"]), 3, 1, 1)
    values["weight"] = chance.standard_normal(shape).astype("f4")
    return snapshot


def test_grey_is_the_mean_of_channels(parity_folder, write, tmp_path):
    path = write(coloured(read_pickled(parity_folder / "sg2_official_nosrc.pkl")))
    colour = read_published(path)
    grey = import_published(path, tmp_path / "grey", channels=1)
    z = torch.randn(3, 16)
    image = colour.generator(z, noise="constant")
    assert image.shape[1] == 3
    torch.testing.assert_close(
        grey.generator(z, noise="constant"), image.mean(dim=1, keepdim=True), rtol=1e-4, atol=1e-4
    )
    one = torch.randn(4, 1, 32, 32)
    torch.testing.assert_close(
        grey.discriminator(one), colour.discriminator(one.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4
    )
    again = read_generator(tmp_path / "grey")
    assert again.told["channels"] == {"before": 3, "now": 1, "rule": "grey is the mean of channels"}
    assert torch.equal(again.generator(z, noise="constant"), grey.generator(z, noise="constant"))


@pytest.mark.parametrize("name", OFFICIAL)
def test_grey_becomes_channels_by_repetition(name, parity_folder):
    grey = read_published(parity_folder / f"{name}_nosrc.pkl")
    more = with_channels(grey, 4)
    z = torch.randn(2, 16)
    image = grey.generator(z, noise="constant")
    torch.testing.assert_close(
        more.generator(z, noise="constant"), image.expand(-1, 4, -1, -1), rtol=1e-5, atol=1e-5
    )
    four = torch.randn(4, 4, 32, 32)
    torch.testing.assert_close(
        more.discriminator(four), grey.discriminator(four.mean(dim=1, keepdim=True)), rtol=1e-4, atol=1e-4
    )
    with pytest.raises(DataError, match="without channels") as caught:
        with_channels(grey, 0)
    assert "--channels 1" in str(caught.value)
    assert "expected: 1 or more" in str(caught.value)


@pytest.mark.parametrize("name", OFFICIAL)
def test_an_import_is_kept_with_where_it_comes_from(name, parity_folder, tmp_path):
    kept = import_published(parity_folder / f"{name}_nosrc.pkl", tmp_path)
    again = read_generator(tmp_path)
    assert again.told["intensity"].startswith("8-bit")
    assert len(again.told["file_sha256"]) == 64
    z = torch.randn(2, 16)
    assert torch.equal(kept.generator(z, noise="constant"), again.generator(z, noise="constant"))
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_the_arguments_of_the_older_code_base(parity_folder, write):
    """StyleGAN2-ADA hands the synthesis its arguments in a dictionary, and has no limit unless told."""
    snapshot = read_pickled(parity_folder / "sg2_official_nosrc.pkl")
    wanted = read_published(parity_folder / "sg2_official_nosrc.pkl")
    for network in (snapshot["G"], snapshot["G_ema"]):
        given = network.state["_init_kwargs"]
        given["synthesis_kwargs"] = {k: given.pop(k) for k in ("channel_base", "channel_max")}
        given["synthesis_kwargs"]["num_fp16_res"] = 4
    for layer in ("b4", "conv1"), ("b8", "conv0"):
        assert part(snapshot["G_ema"], "synthesis", *layer).state["conv_clamp"] == 256
    found = read_published(write(snapshot))
    assert found.settings == wanted.settings
    for network in (snapshot["G_ema"], snapshot["D"]):
        without_limit(network)
    found = read_published(write(snapshot))
    assert found.settings == {**wanted.settings, "conv_clamp": None}
    assert found.discriminator_settings == {**wanted.discriminator_settings, "conv_clamp": None}


def without_limit(network):
    if "conv_clamp" in network.state:
        network.state["conv_clamp"] = None
    for child in network.state["_modules"].values():
        without_limit(child)


def official(parity_folder, network):
    published = read_pickled(parity_folder / "sg2_official_nosrc.pkl")[network]
    kind = "Discriminator" if network == "D" else "Generator"
    return arguments_of(published, "here"), arrays_of(published, kind, "here")


def test_another_multiplier_of_the_mapping_is_folded_into_its_weights(parity_folder):
    arguments, state = official(parity_folder, "G")
    same = {name: value / (10 if ".fc" in name else 1) for name, value in state.items()}
    mapping = {**arguments["mapping_kwargs"], "lr_multiplier": 0.1}
    z = torch.randn(2, 16)
    ours = generator_from({**arguments, "mapping_kwargs": mapping}, same, "here").mapping(z)
    torch.testing.assert_close(ours, generator_from(arguments, state, "here").mapping(z))


def test_a_network_without_noise(parity_folder):
    arguments, state = official(parity_folder, "G")
    silent = {name: value for name, value in state.items() if ".noise_" not in name}
    ours = generator_from({**arguments, "use_noise": False}, silent, "here")
    z = torch.randn(2, 16)
    wanted = generator_from(arguments, state, "here")(z, noise="none")
    torch.testing.assert_close(ours(z, noise="constant"), wanted)


def test_every_published_argument_is_understood():
    given = {**SMALL, "channel_base": 512, "channel_max": 8, "num_fp16_res": 0, "architecture": "skip"}
    given |= {"conv_clamp": None, "resample_filter": [1, 3, 3, 1], "fused_modconv_default": "inference_only"}
    given |= {"mapping_kwargs": {"num_layers": 3, "lr_multiplier": 0.01, "w_avg_beta": 0.995}}
    found = generator_settings(given, "stylegan2", "here")
    assert found["conv_clamp"] is None
    assert found["mapping_layers"] == 3
    given = {**SMALL, "conv_kernel": 1, "use_radial_filters": True, "num_layers": 10, "first_cutoff": 3}
    found = generator_settings(given, "stylegan3", "here")
    assert found["conv_kernel"] == 1
    assert found["use_radial_filters"] is True
    assert found["mapping_layers"] == 2
    given = {"c_dim": 2, "img_resolution": 16, "img_channels": 1, "channel_max": 8, "cmap_dim": 8}
    given |= {"block_kwargs": {"freeze_layers": 3}, "epilogue_kwargs": {"mbstd_group_size": None}}
    found = discriminator_settings(given, "here", clamp=None)
    assert found["group"] == WHOLE_BATCH
    assert found["conv_clamp"] is None
    given["epilogue_kwargs"] = {"mbstd_num_channels": 0}
    assert discriminator_settings(given, "here")["group"] == 0


@pytest.mark.parametrize(
    "given",
    [
        {"architecture": "resnet"},
        {"resample_filter": [1, 2, 1]},
        {"activation": "relu"},
        {"kernel_size": 5},
        {"img_resolution": 2**20},
        {"img_resolution": None},
        {"w_dim": 0},
        {"w_dim": True},
        {"channel_base": "32768"},
        {"conv_clamp": -1},
        {"mapping_kwargs": {"layer_features": 8}},
        {"mapping_kwargs": {"depth": 8}},
        {"mapping_kwargs": [8]},
        {"transformer": True},
    ],
)
def test_arguments_that_ours_cannot_follow_are_named(given):
    with pytest.raises(DataError, match="cannot follow") as caught:
        generator_settings({**SMALL, **given}, "stylegan2", "here")
    name = next(iter(given))
    assert (
        str(name) in str(caught.value)
        or "layer_features" in str(caught.value)
        or "depth" in str(caught.value)
    )


@pytest.mark.parametrize(
    "given",
    [
        {"architecture": "orig"},
        {"cmap_dim": 3},
        {"mapping_kwargs": {"num_layers": 2}},
        {"epilogue_kwargs": {"mbstd_num_channels": 2}},
        {"epilogue_kwargs": {"mbstd_group_size": -4}},
    ],
)
def test_arguments_of_a_discriminator_that_ours_cannot_follow(given):
    small = {"c_dim": 2, "img_resolution": 16, "img_channels": 1, "channel_max": 8}
    with pytest.raises(DataError, match="cannot follow"):
        discriminator_settings({**small, **given}, "here")


def test_weights_of_another_architecture(parity_folder):
    arguments, state = official(parity_folder, "G")
    with pytest.raises(DataError, match="another architecture") as caught:
        generator_from({**arguments, "img_resolution": 64}, state, "here")
    assert "missing" in str(caught.value)
    with pytest.raises(DataError, match="of another shape"):
        generator_from({**arguments, "w_dim": 8}, state, "here")
    with pytest.raises(DataError, match="state of another network"):
        generator_from(arguments, {"model.0.weight": np.zeros(3)}, "here")
    with pytest.raises(DataError, match="state of another network"):
        discriminator_from(official(parity_folder, "D")[0], {"model.0.weight": np.zeros(3)}, "here")


def test_names_that_no_network_has(parity_folder):
    arguments, state = official(parity_folder, "D")
    for name in ("b0.conv0.weight", "b" + "9" * 5000 + ".conv0.weight", "b64 .x", "b12.conv0.weight"):
        with pytest.raises(DataError, match="another network"):
            discriminator_from(arguments, {**state, name: np.zeros(1)}, "here")
    arguments, state = official(parity_folder, "G")
    for name in ("synthesis.b" + "9" * 5000 + ".const", "synthesis.b4096.const"):
        with pytest.raises(DataError, match="another"):
            generator_from(arguments, {**state, name: np.zeros(1)}, "here")
    published = read_pickled(parity_folder / "sg3t_official_nosrc.pkl")["G"]
    arguments, state = arguments_of(published, "here"), arrays_of(published, "Generator", "here")
    with pytest.raises(DataError, match="filter differs"):
        generator_from(arguments, {**state, "synthesis.L99_1_1.up_filter": np.zeros(12)}, "here")


def test_other_filters_are_refused(parity_folder):
    arguments, state = official(parity_folder, "G")
    name = "synthesis.b8.conv0.resample_filter"
    with pytest.raises(DataError, match="another filter"):
        generator_from(arguments, {**state, name: state[name] * 2}, "here")
    published = read_pickled(parity_folder / "sg3t_official_nosrc.pkl")["G"]
    arguments, state = arguments_of(published, "here"), arrays_of(published, "Generator", "here")
    name = next(name for name in state if name.endswith("down_filter"))
    with pytest.raises(DataError, match="filter differs"):
        generator_from(arguments, {**state, name: state[name] * 1.01}, "here")


def test_files_of_another_kind(write, tmp_path):
    with pytest.raises(DataError, match="no published snapshot"):
        read_published(write({"generator": {"weight": np.zeros(3)}}))
    with pytest.raises(DataError, match="class 'Unet'"):
        read_published(write({"G_ema": PickledObject("Unet", {"_parameters": {}})}))
    with pytest.raises(DataError, match="does not tell how it was made"):
        read_published(write({"G_ema": PickledObject("Generator", {"_parameters": {}})}))
    path = tmp_path / "cyclegan.pth"
    torch.save({"model.1.weight": torch.zeros(3)}, path)
    with pytest.raises(DataError, match="zip archive"):
        read_published(path)
    with pytest.raises(DataError, match="no such file"):
        read_published(tmp_path / "none.pkl")
