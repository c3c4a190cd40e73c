"""StyleGAN3: the reference's numbers, shapes, and the properties the paper states."""

import json

import numpy as np
import pytest
import torch

from fewmask.core.errors import ConfigError
from fewmask.networks.stylegan3 import Generator
from fewmask.networks.stylegan3_names import from_published_generator, generator_name

RENAMED = {"img_resolution": "resolution", "img_channels": "channels", "c_dim": "classes"}
IGNORED = {"num_fp16_res", "magnitude_ema_beta"}


def arguments(config):
    """The published constructor's arguments as ours."""
    given = {RENAMED.get(name, name): value for name, value in config.items() if name != "num_fp16_res"}
    given["mapping_layers"] = given.pop("mapping_kwargs", {}).get("num_layers", 2)
    return {**given, **given.pop("synthesis_kwargs", {})}


def files(folder):
    """Every generator of this kind: its configuration, state, arrays."""
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            if "sd/synthesis.input.freqs" not in file.files:
                continue
            data = {key: file[key] for key in file.files}
        tensors = {
            key: torch.from_numpy(np.asarray(value))
            for key, value in data.items()
            if value.dtype.kind == "f" and value.size
        }
        yield path.stem, json.loads(str(data["cfg"])), tensors, data


def references(folder):
    found = False
    for name, config, t, data in files(folder):
        found = True
        generator = Generator(**arguments(config))
        state = {key[3:]: value for key, value in t.items() if key.startswith("sd/")}
        generator.load_state_dict(from_published_generator(state))
        yield name, generator, t, data
    if not found:
        pytest.skip("no StyleGAN3 generator among the reference numbers")


def error(ours, theirs):
    """The largest, relative to the output's own spread."""
    return float((ours - theirs).detach().abs().max() / theirs.double().std().clamp_min(1e-12))


def close(ours, theirs, tolerance=1e-4):
    found = error(ours, theirs)
    assert found <= tolerance, f"relative error {found:.2e}"


def test_parity_images(parity_folder):
    for _, generator, t, _ in references(parity_folder):
        z, label = t["in/z"], t.get("in/c")
        ws = generator.mapping(z, label)
        close(ws, t["out/ws"])
        close(generator.mapping(z, label, 0.7), t["out/ws_psi0.7"])
        close(generator.mapping(z, label, 0.5, truncated_layers=3), t["out/ws_psi0.5_cutoff3"])
        with torch.no_grad():
            close(generator.synthesis(ws), t["out/img_const"])
            close(generator(z, label, 0.7), t["out/img_psi0.7_const"])
            close(generator.synthesis(t["in/wplus"]), t["out/img_wplus_const"])
            generator.synthesis.input.transform.copy_(t["in/user_transform"])
            close(generator.synthesis(ws), t["out/img_user_transform"])


@pytest.mark.usefixtures("plain_convolutions")
def test_parity_gradients(parity_folder):
    for _, generator, t, data in references(parity_folder):
        ws = t["out/ws"].clone().requires_grad_(True)
        image = generator.synthesis(ws)
        scaled = (image * t["in/cotangent"]).sum()
        # The published path length divides by the image's side.
        (gradient,) = torch.autograd.grad(scaled / image.shape[-1], ws, retain_graph=True)
        close(gradient, t["out/grad_ws"])
        close(gradient.square().sum(dim=2).mean(dim=1).sqrt(), t["out/pl_lengths"])
        ours = dict(generator.named_parameters())
        names = [generator_name(str(name)) for name in data["out/param_grad_names"]]
        gradients = torch.autograd.grad(scaled, [ours[name] for name in names])
        norms = [float(g.double().norm()) for g in gradients]
        np.testing.assert_allclose(norms, data["out/param_grad_norm"], rtol=1e-4)


def test_parity_features(parity_folder):
    for _, generator, t, data in references(parity_folder):
        features = generator.features(t["out/ws"][:1])
        assert [f.name for f in features] == [str(name) for name in data["meta/layer_names"]][:-1]
        for feature in features:
            theirs = t[f"act/{feature.name}/ch0-1"].float()
            assert feature.size == feature.tensor.shape[-1] == theirs.shape[-1]
            close(feature.tensor[:, :2], theirs, 3e-3)  # stored in half precision
            close(feature.tensor.mean(dim=(2, 3)), t[f"act/{feature.name}/mean"].float(), 3e-3)
            close(feature.tensor.std(dim=(2, 3)), t[f"act/{feature.name}/std"].float(), 3e-3)


def test_parity_running_averages(parity_folder):
    for _, generator, t, data in references(parity_folder):
        ws = generator.mapping(t["in/z"], t.get("in/c"), update_average=True)
        generator.synthesis(ws, update_average=lambda value: value)
        close(generator.mapping.w_avg, t["out/after_update_emas/w_avg"])
        found = [float(layer.magnitude_ema) for layer in generator.synthesis.layers]
        np.testing.assert_allclose(found, data["out/after_update_emas/magnitude_ema"], rtol=1e-5)


def test_parity_designed_filters(parity_folder):
    for name, generator, t, data in references(parity_folder):
        for n, layer in enumerate(str(name) for name in data["meta/layer_names"]):
            ours = generator.synthesis.layers[n].activation
            for side in ("up_filter", "down_filter"):
                theirs = t.get(f"sd/synthesis.{layer}.{side}")
                designed = getattr(ours, side, None)
                assert (theirs is None) == (designed is None), (name, layer, side)
                if theirs is not None:
                    torch.testing.assert_close(designed, theirs, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("resolution", "channels", "more"),
    [
        (16, 3, {}),
        (64, 1, {"classes": 3}),
        (32, 5, {"conv_kernel": 1, "use_radial_filters": True, "conv_clamp": None}),
        (32, 1, {"num_layers": 6, "num_critical": 0, "margin_size": 4, "filter_size": 4}),
        (16, 2, {"num_layers": 5, "num_critical": 1, "lrelu_upsampling": 4, "first_cutoff": 1.5}),
        (16, 1, {"num_layers": 4, "lrelu_upsampling": 1, "first_stopband": 5.0, "last_stopband_rel": 1.2}),
    ],
)
def test_sizes_names_and_margins(resolution, channels, more):
    generator = Generator(8, 12, resolution, channels, channel_base=256, channel_max=6, **more)
    label = torch.eye(3)[:2] if "classes" in more else None
    ws = generator.mapping(torch.randn(2, 8), label)
    assert ws.shape == (2, generator.num_ws, 12)
    assert generator.num_ws == more.get("num_layers", 14) + 2
    assert (generator.synthesis.frame_ws, generator.synthesis.noise_sizes) == (1, ())
    image = generator.synthesis(ws)
    assert image.shape == (2, channels, resolution, resolution)
    assert bool(image.isfinite().all())
    features = generator.features(ws)
    assert len(features) == generator.num_ws - 2
    margin = more.get("margin_size", 10)
    for n, feature in enumerate(features):
        assert feature.tensor.shape[-2:] == (feature.size, feature.size)
        assert feature.name.startswith(f"L{n}_{feature.size}_")
        inside = feature.size - 2 * feature.margin
        assert resolution % inside == 0
        assert feature.margin == margin or n == len(features) - 1
    assert features[-1].size == resolution


def test_a_resolution_that_cannot_be_generated():
    with pytest.raises(ConfigError, match="power of two from 16 to 1024"):
        Generator(8, 8, 96, 1)


def test_a_limit_that_is_reached_is_a_limit():
    torch.manual_seed(0)
    free, limited = (
        Generator(8, 8, 16, 1, channel_base=64, channel_max=8, conv_clamp=clamp) for clamp in (None, 0.3)
    )
    limited.load_state_dict(free.state_dict())
    ws = free.mapping(torch.randn(2, 8)).detach()
    loose, tight = (one.features(ws)[0].tensor.detach() for one in (free, limited))
    assert float(loose.abs().max()) > 1
    assert float(tight.abs().max()) < 0.3 * 1.5  # the filter behind the limit overshoots


def test_a_user_transform_moves_the_image():
    torch.manual_seed(1)
    generator = Generator(8, 8, 32, 1, channel_base=512, channel_max=16)
    ws = generator.mapping(torch.randn(1, 8))
    with torch.no_grad():
        still = generator.synthesis(ws)
        generator.synthesis.input.transform[0, 2] = 4 / 32
        moved = generator.synthesis(ws)
    inner = still[..., 4:-4, 8:-4]
    difference = moved[..., 4:-4, 4:-8] - inner
    # Equivariant up to what the band limits let through (section 3); far from the border of the canvas.
    assert float(difference.std()) < 0.1 * float(inner.std())


def test_running_magnitudes_move_only_when_asked_and_over_all_processes():
    generator = Generator(8, 8, 16, 1, channel_base=64, channel_max=8, magnitude_ema_beta=0.5)
    ws = generator.mapping(torch.randn(2, 8))
    generator.synthesis(ws)
    first = generator.synthesis.layers[0].magnitude_ema
    assert float(first) == 1.0
    generator.synthesis(ws, update_average=lambda value: torch.zeros_like(value) + 3)
    assert [float(layer.magnitude_ema) for layer in generator.synthesis.layers] == [2.0] * 15
    assert "synthesis.layers.3.magnitude_ema" in generator.state_dict()


def test_frozen_weights_still_let_gradients_reach_the_styles():
    generator = Generator(8, 8, 16, 1, channel_base=64, channel_max=8).requires_grad_(False)
    ws = torch.randn(1, generator.num_ws, 8, requires_grad=True)
    generator.synthesis(ws).square().sum().backward()
    assert bool((ws.grad[:, 1:].abs().sum(dim=2) > 0).all())


def test_a_batch_is_its_images_one_by_one():
    generator = Generator(8, 8, 16, 2, channel_base=64, channel_max=8)
    ws = generator.mapping(torch.randn(3, 8))
    with torch.no_grad():
        close(generator.synthesis(ws[1:2]), generator.synthesis(ws)[1:2])


def test_reduced_precision_is_near():
    generator = Generator(8, 8, 16, 1, channel_base=64, channel_max=8)
    ws = generator.mapping(torch.randn(2, 8))
    with torch.autocast("cpu", torch.bfloat16):
        image = generator.synthesis(ws)
    image.square().sum().backward()
    close(image.float(), generator.synthesis(ws).detach(), 0.15)
