"""Our StyleGAN2 and StyleGAN3 compute what the published ones compute, for every file of the folder.

Every `out/` and `act/` array of a file is compared or the test fails. Networks are built by the functions
that import published checkpoints (`synthesis/published.py`): there is one way from their words to ours.
"""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from fewmask.data.pickled import read_pickled
from fewmask.networks import stylegan2_names, stylegan3, stylegan3_names
from fewmask.networks.mapping import MappingNetwork, normalise
from fewmask.synthesis.published import (
    arguments_of,
    arrays_of,
    clamp_of,
    discriminator_from,
    generator_from,
    read_published,
)

PSI = r"_psi(?P<psi>-?[\d.]+)(?:_cutoff(?P<cutoff>\d+))?"


def truncation(found):
    """The keyword arguments of a mapping from a key such as "ws_psi0.7_cutoff4"."""
    cutoff = found["cutoff"]
    return {
        "truncation": float(found["psi"] or 1),
        "truncated_layers": None if cutoff is None else int(cutoff),
    }


def compare_images(reference, generator, prefix="out/"):
    """Styles and images, with and without truncation, by their keys."""
    z, label = reference.tensor("in/z"), reference.tensor("in/c")
    mapping, draw = generator.mapping, generator.synthesis
    with torch.no_grad():
        for key, found in reference.named(rf"{prefix}ws(?:{PSI})?"):
            reference.compare(key, mapping(z, label, **truncation(found)))
        noises = {"_const": "constant", "_noise_none": "none"}
        for key, found in reference.named(rf"{prefix}img(?:{PSI})?(?P<noise>_const|_noise_none)"):
            ws = mapping(z, label, **truncation(found))
            reference.compare(key, draw(ws, noises[found["noise"]]))
        for key, found in reference.named(rf"{prefix}img_wplus(?P<noise>_const|_noise_none)"):
            reference.compare(key, draw(reference.tensor("in/wplus"), noises[found["noise"]]))


def compare_gradients(reference, generator, name_of):
    """Of the image times a cotangent: to the styles, their lengths, and to every parameter."""
    ws = reference.tensor("out/ws").clone().requires_grad_(True)
    image = generator.synthesis(ws, "constant")
    scaled = (image * reference.tensor("in/cotangent")).sum()
    # The published path length divides by the image's side.
    (gradient,) = torch.autograd.grad(scaled / image.shape[-1], ws, retain_graph=True)
    if "out/grad_ws" in reference.data:
        reference.compare("out/grad_ws", gradient)
    if "out/pl_lengths" in reference.data:
        reference.compare("out/pl_lengths", gradient.square().sum(dim=2).mean(dim=1).sqrt())
    if "out/param_grad_norm" not in reference.data:
        return
    ours = dict(generator.named_parameters())
    names = [name_of(str(name)) for name in reference.data["out/param_grad_names"]]
    gradients = torch.autograd.grad(scaled, [ours[name] for name in names])
    norms = torch.stack([g.double().norm() for g in gradients])
    reference.compare("out/param_grad_norm", norms)
    theirs = torch.from_numpy(reference.data["out/param_grad_norm"])
    assert float(((norms - theirs).abs() / theirs).max()) < 1e-4, "each gradient's own length"


def traced(network, names, run):
    """The outputs of the submodules `names` while `run` runs, and their inputs."""
    seen = {}

    def keep(name):
        def hook(_, inputs, output):
            seen[name] = output
            seen[f"{name}<"] = inputs[0]

        return hook

    handles = [network.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    with torch.no_grad():
        run()
    for handle in handles:
        handle.remove()
    return seen


def compare_stylegan2_activations(reference, generator):
    synthesis = generator.synthesis
    blocks = {block.size: n for n, block in enumerate(synthesis.blocks)}
    names = [f"blocks.{n}{part}" for n in blocks.values() for part in ("", ".to_image")]
    ws = reference.tensor("out/ws")[:1]
    seen = traced(synthesis, names, lambda: synthesis(ws, "constant"))
    with torch.no_grad():
        features = {feature.name: feature for feature in generator.features(ws)}
    assert {f.size for f in features.values()} == set(blocks)
    for key, found in reference.named(r"act/b(\d+)\.(conv\d)"):
        feature = features[f"{found[1]}px.{found[2]}"]
        assert feature.size == feature.tensor.shape[-1]
        reference.compare(key, feature.tensor)
    for key, found in reference.named(r"act/b(\d+)(\.torgb|/x|/img)"):
        name = f"blocks.{blocks[int(found[1])]}"
        layers, image = seen[name]
        ours = {".torgb": seen[f"{name}.to_image"], "/x": layers[-1].tensor, "/img": image}[found[2]]
        reference.compare(key, ours)


def compare_stylegan3_activations(reference, generator):
    synthesis = generator.synthesis
    names = synthesis.names
    assert names == [str(name) for name in reference.data.get("meta/layer_names", names)]
    ws = reference.tensor("out/ws")[:1]
    with torch.no_grad():
        features = generator.features(ws)
    assert [feature.name for feature in features] == names[:-1]
    seen = traced(synthesis, ["input", f"layers.{len(names) - 1}"], lambda: synthesis(ws))
    ours = {feature.name: feature.tensor for feature in features}
    ours |= {"input": seen["input"], names[-1]: seen[f"layers.{len(names) - 1}"]}
    for key, found in reference.named(r"act/([^/]+)/(ch0-1|mean|std)"):
        x = ours[found[1]]
        value = {"ch0-1": x[:, :2], "mean": x.mean(dim=(2, 3)), "std": x.std(dim=(2, 3))}[found[2]]
        # The mean of a wave is about 0: measured by the activation itself.
        reference.compare(key, value, like=f"act/{found[1]}/ch0-1" if found[2] == "mean" else None)


def compare_averages(reference, generator):
    """The running means of styles and magnitudes after one batch."""
    ws = generator.mapping(reference.tensor("in/z"), reference.tensor("in/c"), update_average=True)
    with torch.no_grad():
        generator.synthesis(ws, update_average=lambda value: value)
    reference.compare("out/after_update_emas/w_avg", generator.mapping.w_avg)
    found = [float(layer.magnitude_ema) for layer in generator.synthesis.layers]
    reference.compare("out/after_update_emas/magnitude_ema", found)


@pytest.mark.usefixtures("plain_convolutions")
def test_parity_generator(generator_file, reference):
    r = reference(generator_file)
    generator = generator_from(r.config, r.state(), generator_file.name).requires_grad_(True)
    third = isinstance(generator, stylegan3.Generator)
    compare_images(r, generator)
    names = stylegan3_names if third else stylegan2_names
    if "in/cotangent" in r.data:
        compare_gradients(r, generator, names.generator_name)
    if third:
        compare_stylegan3_activations(r, generator)
        if "in/user_transform" in r.data:
            with torch.no_grad():
                generator.synthesis.input.transform.copy_(r.tensor("in/user_transform"))
                r.compare("out/img_user_transform", generator.synthesis(r.tensor("out/ws")))
                generator.synthesis.input.transform.copy_(torch.eye(3))
        if r.named("out/after_update_emas/.*"):
            compare_averages(r, generator)
    else:
        compare_stylegan2_activations(r, generator)
    r.check("out/param_grad_names")


def test_parity_discriminator(discriminator_file, reference):
    r = reference(discriminator_file)
    critic = discriminator_from(r.config, r.state(), discriminator_file.name).requires_grad_(True)
    image, label = r.tensor("in/img").clone().requires_grad_(True), r.tensor("in/c")
    logits = critic(image, label)
    r.compare("out/logits", logits)
    with torch.no_grad():
        for key, found in r.named(r"out/logits_first(\d+)"):
            few = None if label is None else label[: int(found[1])]
            r.compare(key, critic(image[: int(found[1])], few), like="out/logits")
    if "out/grad_img" in r.data:
        compare_penalty(r, critic, image, logits)
    seen = traced(critic, ["conv", "hidden"], lambda: critic(image, label))
    with torch.no_grad():
        features = {feature.name: feature.tensor for feature in critic.features(image)}
    for key, found in r.named(r"act/b(\d+)/x"):
        r.compare(key, features[f"{int(found[1]) // 2}px.block"][:1])
    for key, ours in (
        ("act/b4.mbstd", seen["conv<"][:1]),
        ("act/b4.conv", seen["conv"][:1]),
        ("act/b4.fc", seen["hidden"][:1]),
        ("act/b4.mbstd/std_channel_all_samples", seen["conv<"][:, -1, 0, 0]),
    ):
        if key in r.data:
            r.compare(key, ours)
    r.check("out/r1_param_grad_names")


def compare_penalty(r, critic, image, logits):
    """The gradient to the image, its square, and the penalty's gradients with gamma 10."""
    (gradient,) = torch.autograd.grad(logits.sum(), image, create_graph=True)
    r.compare("out/grad_img", gradient)
    penalty = gradient.square().sum(dim=(1, 2, 3))
    r.compare("out/r1_penalty", penalty)
    names = [str(name) for name in r.data["out/r1_param_grad_names"]]
    ours = dict(critic.named_parameters())
    weights = [ours[stylegan2_names.discriminator_name(name, critic.resolution)] for name in names]
    grads = torch.autograd.grad(10 / 2 * penalty.mean(), weights, allow_unused=True)
    norms = [0.0 if g is None else float(g.double().norm()) for g in grads]
    r.compare("out/r1_param_grad_norm", norms)


def test_parity_mapping(mapping_file, reference):
    r = reference(mapping_file)
    known = {"z_dim", "c_dim", "w_dim", "num_ws", "num_layers"}
    assert set(r.config) <= known, "an argument of the mapping that no check knows"
    mapping = MappingNetwork(
        r.config["z_dim"],
        r.config["w_dim"],
        layers=r.config.get("num_layers", 8),
        classes=r.config.get("c_dim", 0),
        num_ws=r.config["num_ws"],
    )
    state = {name: torch.from_numpy(value) for name, value in r.state().items()}
    mapping.load_state_dict(stylegan2_names.from_published_generator(state))
    z, label = r.tensor("in/z"), r.tensor("in/c")
    for key, found in r.named(rf"out/ws(?:{PSI})?"):
        r.compare(key, mapping(z, label, **truncation(found)))
    names = [f"layers.{n}" for n in range(len(mapping.layers))]
    seen = traced(mapping, names, lambda: mapping(z, label))
    for key, found in r.named(r"act/fc(\d+)"):
        r.compare(key, seen[f"layers.{found[1]}"])
    if "act/z_norm" in r.data:
        r.compare("act/z_norm", normalise(z))
    if "out/w_avg_after_update" in r.data:
        mapping(z, label, update_average=True)
        r.compare("out/w_avg_after_update", mapping.w_avg)
    r.check()


def test_parity_official(official_file, reference):
    r = reference(official_file)
    pickles = [official_file.with_name(f"{official_file.stem}{end}.pkl") for end in ("_nosrc", "")]
    path = next(path for path in pickles if path.exists())
    snapshot, kept = read_pickled(path), read_published(path)
    networks = {"G_ema": kept.generator, "D": kept.discriminator}
    published = snapshot["G"]
    networks["G"] = generator_from(
        arguments_of(published, path.name),
        arrays_of(published, "Generator", path.name),
        path.name,
        clamp=clamp_of(published),
    )
    for name in ("G", "G_ema"):
        compare_images(r, networks[name], f"out/{name}/")
    with torch.no_grad():
        r.compare("out/D/logits", networks["D"](r.tensor("in/img"), r.tensor("in/c")))
    if "out/augment_p" in r.data:
        r.compare("out/augment_p", snapshot["augment_pipe"].state["_buffers"]["p"])
    for key, found in r.named(r"sum/([^/]+)/(.+)"):
        kind = "Discriminator" if found[1] == "D" else "Generator"
        array = arrays_of(snapshot[found[1]], kind, path.name)[found[2]].astype(np.float64)
        r.compare(key, np.array([array.sum(), np.abs(array).sum()]))
    r.check()


def test_parity_page_lists_every_file():
    """The page of results tells of every file that lies in the project's own folder of reference numbers."""
    root = Path(__file__).resolve().parents[2]
    shown = root / "../shared/parity"
    if not shown.is_dir():
        pytest.skip(f"no folder {shown}")
    page = (root / "docs/results/parity.md").read_text(encoding="utf-8")
    files = [path.stem for path in shown.glob("*.npz") if re.match(r"sg\d?|sg_|ada_", path.stem)]
    assert len(files) > 10
    assert not [name for name in files if f"`{name}`" not in page]
