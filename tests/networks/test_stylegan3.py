"""StyleGAN3: the reference's numbers, shapes, and the properties the paper states."""

import json

import numpy as np
import pytest
import torch

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
