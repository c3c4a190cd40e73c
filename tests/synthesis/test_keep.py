"""A generator comes back from its folder as it was, and damage is told of."""

import json

import pytest
import torch

from fewmask.core.errors import DataError, RunError
from fewmask.core.run import GeneratorFolder
from fewmask.synthesis.design import build_discriminator, build_generator
from fewmask.synthesis.keep import KeptGenerator, read_generator, write_generator

SIZES = {"channel_base": 64, "channel_max": 4}
STYLEGAN2 = {"kind": "stylegan2", "z_dim": 4, "w_dim": 6, "resolution": 16, "channels": 2, **SIZES}
STYLEGAN3 = {**STYLEGAN2, "kind": "stylegan3", "num_layers": 5}
CRITIC = {"resolution": 16, "channels": 2, **SIZES}


def kept(settings=STYLEGAN2, critic=CRITIC):
    discriminator = build_discriminator(critic) if critic else None
    return KeptGenerator(settings, build_generator(settings), critic, discriminator, {"from": "a test"})


@pytest.mark.parametrize("settings", [STYLEGAN2, STYLEGAN3])
@pytest.mark.parametrize("critic", [CRITIC, None])
@torch.no_grad()  # with gradients other kernels are chosen for one than for the other
def test_it_comes_back_as_it_was(settings, critic, tmp_path):
    before = kept(settings, critic)
    before.generator.mapping.w_avg.uniform_()
    write_generator(tmp_path, before)
    state = torch.random.get_rng_state()
    after = read_generator(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), state), "reading must not use up chance"
    assert (after.settings, after.discriminator_settings, after.told) == (
        settings,
        critic,
        {"from": "a test"},
    )
    z = torch.randn(2, 4)
    image = before.generator(z, truncation=0.5, noise="constant")
    assert torch.equal(after.generator(z, truncation=0.5, noise="constant"), image)
    assert not any(p.requires_grad for p in after.generator.parameters())
    assert not after.generator.training
    assert (after.discriminator is None) == (critic is None)
    if critic:
        assert torch.equal(after.discriminator(image), before.discriminator(image))


def test_writing_over_an_older_one_leaves_nothing_of_it(tmp_path):
    write_generator(tmp_path, kept())
    write_generator(tmp_path, kept(critic=None))
    assert not GeneratorFolder(tmp_path).discriminator_weights.exists()
    assert read_generator(tmp_path).discriminator is None


def test_a_write_that_stops_half_way_leaves_no_generator(tmp_path, files_of_at_most):
    with files_of_at_most(2000), pytest.raises(RunError, match="File too large"):
        write_generator(tmp_path, kept())
    assert not list(tmp_path.iterdir())
    write_generator(tmp_path, kept())
    assert read_generator(tmp_path).settings == STYLEGAN2


def changed(folder, **values):
    path = GeneratorFolder(folder).generator_json
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"format": 9}, "another format"),
        ({"generator": None}, "does not describe a generator"),
        ({"generator": {**STYLEGAN2, "kind": "diffusion"}}, "describe no network"),
        ({"generator": {**STYLEGAN2, "depth": 3}}, "describe no network"),
        ({"generator": {**STYLEGAN2, "resolution": 24}}, "describe no network"),
        ({"generator": {**STYLEGAN2, "w_dim": "6"}}, "describe no network"),
        ({"generator": STYLEGAN3}, "another architecture"),
        ({"generator": {**STYLEGAN2, "resolution": 32}}, "another architecture"),
        ({"generator": {**STYLEGAN2, "channel_base": 2**30, "channel_max": 2**20}}, "another architecture"),
        ({"discriminator": {**CRITIC, "channels": 3}}, "another architecture"),
        ({"sha256": {}}, "its checksum differs"),
    ],
)
def test_a_json_that_lies_is_told_of(values, words, tmp_path):
    write_generator(tmp_path, kept())
    changed(tmp_path, **values)
    with pytest.raises(DataError, match=words):
        read_generator(tmp_path)


def test_a_truncated_or_changed_file_is_told_of(tmp_path):
    files = write_generator(tmp_path, kept())
    whole = files.generator_weights.read_bytes()
    for part in (b"", whole[:6], whole[: len(whole) // 2], whole[:-1]):
        files.generator_weights.write_bytes(part)
        with pytest.raises(DataError, match="cannot be read"):
            read_generator(tmp_path)
    files.generator_weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataError, match="checksum"):
        read_generator(tmp_path)
    files.generator_json.write_text("{")
    with pytest.raises(DataError, match="not readable JSON"):
        read_generator(tmp_path)


def test_a_folder_without_a_generator(tmp_path):
    with pytest.raises(DataError, match="holds no generator"):
        read_generator(tmp_path)


def test_weights_that_are_no_numbers(tmp_path):
    bad = kept()
    with torch.no_grad():
        bad.generator.synthesis.const[0, 0, 0] = float("nan")
    write_generator(tmp_path, bad)
    with pytest.raises(DataError, match="not finite"):
        read_generator(tmp_path)
