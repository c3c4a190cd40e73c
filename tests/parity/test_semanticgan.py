"""Our discriminator of pairs and the losses on masks compute what SemanticGAN's published ones compute."""

import re

import torch

from fewmask.networks.semanticgan import MaskDiscriminator
from fewmask.objectives.semanticgan import (
    ENTROPY_TEMPERATURE,
    SIGMOID_TEMPERATURE,
    hinge_fake,
    hinge_generator,
    hinge_real,
    labelled_dice,
    labelled_entropy,
    noise_correlation,
)

PARTS = {"weight": "weight", "bias": "bias", "weight_orig": "weight", "weight_u": "u", "weight_v": "v"}


def our_name(theirs, config):
    """Their scales count from the coarsest, ours from the finest."""
    found = re.fullmatch(r"scale(\d+)_layer(\d+)\.(?:0\.)?0\.(\w+)", theirs)
    scale, layer = config["num_D"] - 1 - int(found[1]), int(found[2])
    module = {0: "first", config["n_layers"] + 1: "last"}.get(layer, f"inner.{layer - 1}")
    return f"scales.{scale}.{module}.{PARTS[found[3]]}"


def test_parity_mask_discriminator(mask_discriminator_file, reference):
    r = reference(mask_discriminator_file)
    assert r.config["norm"] == "spectralinstance"
    sizes = {"width": r.config["ndf"], "layers": r.config["n_layers"], "scales": r.config["num_D"]}
    critic = MaskDiscriminator(1, r.config["input_nc"] - 1, **sizes)
    state = {our_name(name, r.config): torch.from_numpy(value) for name, value in r.state().items()}
    critic.load_state_dict(state)
    with torch.no_grad():
        judged = critic(r.tensor("in/x"))
    for key, found in r.named(r"out/D(\d+)_layer(\d+)"):
        scale, layer = int(found[1]), int(found[2])
        ours = [*judged.features[scale], judged.logits[scale]][layer]
        r.compare(key, ours[: len(r.tensor(key))])
    for key, loss in (("D_real", hinge_real), ("D_fake", hinge_fake), ("G", hinge_generator)):
        r.compare(f"out/hinge_{key}", loss(judged).reshape(1))
    r.check()


def test_parity_mask_losses(mask_losses_file, reference):
    r = reference(mask_losses_file)
    many, one = r.tensor("in/pred4"), r.tensor("in/pred1")
    label, mask = r.tensor("in/label"), r.tensor("in/mask1")[:, 0].long()
    assert torch.equal(mask[:, None].float(), r.tensor("in/mask1")), "class numbers 0 and 1"
    r.compare(f"out/softmax_tau{ENTROPY_TEMPERATURE}", labelled_entropy(many, label))
    r.compare(f"out/softbce_tau{SIGMOID_TEMPERATURE}", labelled_entropy(one, mask))
    r.compare(f"out/dice_multi_tau{SIGMOID_TEMPERATURE}", labelled_dice(many, label))
    r.compare(f"out/dice_bin_tau{SIGMOID_TEMPERATURE}_bg", labelled_dice(one, mask))
    maps = [r.tensor(key) for key, _ in r.named(r"in/noise\d+")]
    r.compare("out/noise_regularize", noise_correlation(maps)[0])
    r.check()
