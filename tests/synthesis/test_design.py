"""Designs are plain numbers, follow the published rules, and build the networks they describe."""

import json
from dataclasses import asdict

import pytest

from fewmask.core.errors import ConfigError
from fewmask.networks import stylegan2, stylegan3
from fewmask.synthesis.design import GeneratorDesign, build_discriminator, build_generator, design_for

SMALL = {"channel_base": 64, "channel_max": 4, "latent": 8, "mapping_layers": 1}


def test_settings_build_the_networks_and_are_json():
    design = GeneratorDesign(**SMALL)
    settings = json.loads(json.dumps(design.generator(3, 16, classes=2)))
    network = build_generator(settings)
    assert isinstance(network, stylegan2.Generator)
    assert (network.channels, network.resolution, network.classes, network.w_dim) == (3, 16, 2, 8)
    judge = build_discriminator(json.loads(json.dumps(design.discriminator(3, 16, classes=2))))
    assert (judge.channels, judge.classes) == (3, 2)
    assert json.loads(json.dumps(asdict(design)))["kind"] == "stylegan2"


def test_stylegan3_r_is_radial_pointwise_and_twice_as_wide():
    t = build_generator(GeneratorDesign("stylegan3-t", **SMALL).generator(1, 16))
    r = build_generator(GeneratorDesign("stylegan3-r", **SMALL).generator(1, 16))
    assert isinstance(t, stylegan3.Generator)
    assert t.synthesis.layers[3].weight.shape[2:] == (3, 3)
    assert r.synthesis.layers[3].weight.shape[2:] == (1, 1)
    assert r.synthesis.layers[3].weight.shape[0] == 2 * t.synthesis.layers[3].weight.shape[0]
    assert GeneratorDesign("stylegan3-t").fading is None
    assert GeneratorDesign("stylegan3-r", batch=32).fading.at(100_000) == 5.0
    assert t.synthesis.layers[0].beta == pytest.approx(0.5 ** (16 / 20_000))


def test_the_published_rules_of_stylegan2():
    design = design_for(256, 5000, 16)
    assert design.gamma(256) == pytest.approx(0.0002 * 256**2 / 16)
    assert (design.channel_base, design.mapping_layers, design.learning_rate) == (16384, 2, 2.5e-3)
    assert design.average_half_life == 5000
    assert (design.path_length_weight, design.mixing, design.ada_images) == (2.0, 0.9, 500_000)
    large = design_for(1024, 5000, 4)
    assert (large.channel_base, large.learning_rate) == (32768, 2e-3)
    assert design_for(64, 5000).batch == 32


def test_the_published_table_of_stylegan3():
    for resolution, gamma in ((128, 0.5), (256, 2), (512, 8), (1024, 32)):
        assert design_for(resolution, 5000, 32, kind="stylegan3-t").gamma(resolution) == gamma
    design = design_for(128, 5000, 32, kind="stylegan3-t")
    assert (design.path_length_weight, design.mixing) == (0.0, 0.0)
    assert (design.learning_rate, design.discriminator_rate) == (2.5e-3, 2e-3)


def test_mirroring_is_off_and_augmentation_is_for_small_sets():
    assert "xflip" not in design_for(64, 1000).ada_operations
    assert "xflip" in design_for(64, 1000, mirror=True).ada_operations
    assert design_for(64, 200_000).ada_operations == ()
    assert design_for(64, 1000, total=40_000).ada_images == 10_000


def test_transfer_is_fast_to_augment_and_has_no_ramp():
    design = design_for(64, 1000).transferred(freeze=2)
    assert (design.ada_images, design.average_ramp, design.freeze) == (100_000, None, 2)


def test_settings_of_another_network_are_refused():
    settings = GeneratorDesign(**SMALL).generator(1, 16)
    with pytest.raises(ConfigError, match="unknown kind"):
        build_generator(settings | {"kind": "stylegan9"})
    with pytest.raises(ConfigError, match="unknown kind"):
        GeneratorDesign(kind="stylegan3")
    with pytest.raises(ConfigError, match="describe this network") as told:
        build_generator({"kind": "stylegan3", "resolution": 16, "wings": 2})
    assert "unknown wings" in str(told.value)
    assert "no z_dim" in str(told.value)
