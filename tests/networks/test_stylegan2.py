"""StyleGAN2: shapes, the reference's numbers, and the properties the papers state."""

import json

import numpy as np
import pytest
import torch

from fewmask.core.errors import ConfigError
from fewmask.networks.mapping import MappingNetwork
from fewmask.networks.stylegan2 import Discriminator, Generator, append_group_deviation
from fewmask.networks.stylegan2_names import (
    discriminator_name,
    from_published_discriminator,
    from_published_generator,
    generator_name,
)


def archive(folder, name):
    with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
        data = {key: file[key] for key in file.files}
    tensors = {
        key: torch.from_numpy(np.asarray(value))
        for key, value in data.items()
        if value.dtype.kind == "f" and value.size
    }
    state = {key[3:]: value for key, value in tensors.items() if key.startswith("sd/")}
    return json.loads(str(data["cfg"])), state, tensors, data


def close(ours, theirs, tolerance=1e-4):
    """Relative to the output's own spread."""
    error = (ours - theirs).abs().max() / theirs.double().std().clamp_min(1e-12)
    assert error <= tolerance, f"relative error {error:.2e}"


def reference_generator(folder, name):
    config, state, tensors, data = archive(folder, name)
    generator = Generator(
        config["z_dim"],
        config["w_dim"],
        config["img_resolution"],
        config["img_channels"],
        channel_base=config["channel_base"],
        channel_max=config["channel_max"],
        mapping_layers=config["mapping_kwargs"]["num_layers"],
        classes=config["c_dim"],
        conv_clamp=config.get("conv_clamp", 256),
    )
    generator.load_state_dict(from_published_generator(state))
    return generator, tensors, data


GENERATORS = ["sg2_G", "sg2_G_cond", "sg2_G_clamp"]


@pytest.mark.parametrize("name", GENERATORS)
def test_generator_equals_the_reference(parity_folder, name):
    generator, t, _ = reference_generator(parity_folder, name)
    z, label = t["in/z"], t.get("in/c")
    ws = generator.mapping(z, label)
    close(ws, t["out/ws"])
    close(generator.mapping(z, label, 0.7), t["out/ws_psi0.7"])
    close(generator.mapping(z, label, 0.5, truncated_layers=3), t["out/ws_psi0.5_cutoff3"])
    close(generator.synthesis(ws, "constant"), t["out/img_const"])
    close(generator.synthesis(ws, "none"), t["out/img_noise_none"])
    close(generator(z, label, 0.7, "constant"), t["out/img_psi0.7_const"])
    close(generator.synthesis(t["in/wplus"], "constant"), t["out/img_wplus_const"])


@pytest.mark.parametrize("name", GENERATORS)
def test_generator_gradients_equal_the_reference(parity_folder, name):
    generator, t, data = reference_generator(parity_folder, name)
    ws = t["out/ws"].clone().requires_grad_(True)
    image = generator.synthesis(ws, "constant")
    loss = (image * t["in/cotangent"]).sum() / image.shape[-1]  # the normalisation of path lengths
    (gradient,) = torch.autograd.grad(loss, ws, create_graph=True)
    close(gradient, t["out/grad_ws"])
    lengths = gradient.square().sum(dim=2).mean(dim=1).sqrt()
    close(lengths, t["out/pl_lengths"])
    names = [str(n) for n in data["out/param_grad_names"]]
    ours = dict(generator.named_parameters())
    scaled = loss * image.shape[-1]
    gradients = torch.autograd.grad(scaled, [ours[generator_name(name)] for name in names])
    norms = [float(g.double().norm()) for g in gradients]
    np.testing.assert_allclose(norms, data["out/param_grad_norm"], rtol=1e-4)


@pytest.mark.parametrize("name", GENERATORS)
def test_features_equal_the_reference(parity_folder, name):
    generator, t, _ = reference_generator(parity_folder, name)
    features = generator.features(t["out/ws"][:1], "constant")
    assert [f.name for f in features][:3] == ["4px.conv1", "8px.conv0", "8px.conv1"]
    for feature in features:
        size, layer = feature.name.split("px.")
        theirs = t[f"act/b{size}.{layer}"].float()
        assert feature.size == theirs.shape[-1]
        close(feature.tensor, theirs, 3e-3)  # stored in half precision


def test_mapping_equals_the_reference(parity_folder):
    config, state, t, _ = archive(parity_folder, "sg2_mapping")
    mapping = MappingNetwork(
        config["z_dim"], config["w_dim"], layers=config["num_layers"], num_ws=config["num_ws"]
    )
    mapping.load_state_dict(from_published_generator(state))
    z = t["in/z"]
    close(mapping(z), t["out/ws"])
    close(mapping(z, None, 0.7), t["out/ws_psi0.7"])
    close(mapping(z, None, 0.7, truncated_layers=4), t["out/ws_psi0.7_cutoff4"])
    close(mapping(z, None, -1.0), t["out/ws_psi-1"])
    mapping(z, update_average=True)
    close(mapping.w_avg, t["out/w_avg_after_update"])


@pytest.mark.parametrize("name", ["sg2_D", "sg2_D_cond"])
def test_discriminator_equals_the_reference(parity_folder, name):
    config, state, t, data = archive(parity_folder, name)
    discriminator = Discriminator(
        config["img_resolution"],
        config["img_channels"],
        channel_base=config["channel_base"],
        channel_max=config["channel_max"],
        classes=config["c_dim"],
        group=config["epilogue_kwargs"]["mbstd_group_size"],
        conv_clamp=256,
    )
    discriminator.load_state_dict(from_published_discriminator(state))
    image, label = t["in/img"].clone().requires_grad_(True), t.get("in/c")
    logits = discriminator(image, label)
    close(logits, t["out/logits"])
    for count in (1, 2):
        few = None if label is None else label[:count]
        theirs = t[f"out/logits_first{count}"]
        assert torch.allclose(discriminator(image[:count], few), theirs, rtol=1e-4, atol=1e-4)
    (gradient,) = torch.autograd.grad(logits.sum(), image, create_graph=True)
    close(gradient, t["out/grad_img"])
    penalty = gradient.square().sum(dim=(1, 2, 3))
    close(penalty, t["out/r1_penalty"])
    names = [str(n) for n in data["out/r1_param_grad_names"]]
    ours = dict(discriminator.named_parameters())
    weights = [ours[discriminator_name(name, discriminator.resolution)] for name in names]
    grads = torch.autograd.grad(10 / 2 * penalty.mean(), weights, allow_unused=True)
    norms = np.array([0.0 if g is None else float(g.double().norm()) for g in grads])
    theirs = data["out/r1_param_grad_norm"]
    np.testing.assert_allclose(norms, theirs, rtol=1e-3, atol=1e-5 * theirs.max())


@pytest.mark.parametrize(("resolution", "channels"), [(16, 3), (64, 1), (128, 5)])
def test_sizes_and_names(resolution, channels):
    generator = Generator(8, 12, resolution, channels, channel_base=256, channel_max=6, mapping_layers=2)
    ws = generator.mapping(torch.randn(3, 8))
    assert ws.shape == (3, generator.num_ws, 12)
    assert generator.synthesis(ws).shape == (3, channels, resolution, resolution)
    features = generator.features(ws)
    assert len(features) == generator.num_ws - 1
    assert [f.tensor.shape[-1] for f in features] == [f.size for f in features]
    assert features[-1].size == resolution
    discriminator = Discriminator(resolution, channels, channel_base=256, channel_max=6)
    assert discriminator(torch.randn(3, channels, resolution, resolution)).shape == (3, 1)
    assert [f.size for f in discriminator.features(generator.synthesis(ws))][-2:] == [4, 4]


def test_style_scale_does_not_change_a_demodulated_layer():
    layer = Generator(4, 4, 16, 1, channel_max=8).synthesis.blocks[1].conv0
    with torch.no_grad():
        layer.bias.zero_()
    x, w = torch.randn(2, 8, 4, 4), torch.randn(2, 4)
    once = layer(x, w, "none")
    with torch.no_grad():
        layer.affine.weight.mul_(3)
        layer.affine.bias.mul_(3)
    close(layer(x, w, "none"), once)


def test_noise_is_random_constant_or_absent():
    generator = Generator(4, 4, 16, 1, channel_max=8)
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(parameter, 0.3)
    ws = generator.mapping(torch.randn(1, 4))
    draw = generator.synthesis
    assert torch.equal(draw(ws, "constant"), draw(ws, "constant"))
    assert not torch.equal(draw(ws, "random"), draw(ws, "random"))
    assert not torch.equal(draw(ws, "constant"), draw(ws, "none"))


def test_group_deviation_falls_back_to_a_divisor():
    x = torch.randn(5, 3, 4, 4)
    assert append_group_deviation(x, 4).shape == (5, 4, 4, 4)
    x = torch.zeros(4, 3, 4, 4)
    x[2] += 2.0  # groups of 2 are images (0, 2) and (1, 3)
    channel = append_group_deviation(x, 2)[:, -1, 0, 0]
    assert torch.allclose(channel, torch.tensor([1.0, 1e-4, 1.0, 1e-4]), atol=1e-3)


def test_a_resolution_that_cannot_be_generated():
    with pytest.raises(ConfigError, match="power of two from 16 to 1024"):
        Generator(8, 8, 96, 1)
