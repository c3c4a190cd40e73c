"""The operations below the networks, and the augmentations, against the published ones."""

import math
from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F

from fewmask.networks.equalised import EqualConv2d
from fewmask.networks.resample import Binomial
from fewmask.networks.stylegan2 import SynthesisLayer
from fewmask.objectives.ada import Draw, apply, unchanged
from fewmask.objectives.ada_filter import filter_bank
from fewmask.objectives.ada_geometry import SYM6

WITHOUT_COUNTERPART = {
    r"out/upfirdn_.*": "any factors, paddings and filters: ours resample by two with one filter",
    r"out/filtered_lrelu_.*": "oblong maps and random filters: ours is for square ones and designed filters, "
    "and is compared layer by layer in the generators of StyleGAN3",
    r"out/bias_act/(relu|tanh|sigmoid|elu|selu|softplus|swish)": "no published configuration uses it",
    r"out/bias_act/lrelu_.*": "the slope is 0.2 and the gain sqrt(2) in all published configurations; the "
    "limit is compared in the clamped generator",
    r"out/conv2d_resample_k1_up2_.*": "only the residual generator upsamples by a 1 x 1 convolution",
}
"""Operations of the reference that no network of ours has, and why: none is written for a test."""


def convolution(weight, *, bias=None, **settings):
    """Our convolution with these very weights: the equalised factor is taken out."""
    out, into, kernel, _ = weight.shape
    layer = EqualConv2d(into, out, kernel, bias=bias is not None, **{"activate": False, **settings})
    with torch.no_grad():
        layer.weight.copy_(weight * math.sqrt(into * kernel**2))
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


def upsampling_layer(x, weight):
    """Our upsampling layer with styles 1, and what it should give for a plain convolution's output."""
    layer = SynthesisLayer(weight.shape[1], weight.shape[0], 8, 4, up=True, clamp=None)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.affine.weight.zero_()
        layer.affine.bias.fill_(1.0)
        ours = layer(x, torch.zeros(len(x), 4), "none")
    scale = (weight.square().sum(dim=(1, 2, 3)) + 1e-8).rsqrt() * math.sqrt(2)
    return F.leaky_relu(ours, 5.0) / scale[:, None, None]  # slope 0.2 undone


def test_parity_operations(operations_file, reference):
    r = reference(operations_file)
    x, bias = r.tensor("in/x"), r.tensor("in/b")
    eye = torch.eye(len(bias))[:, :, None, None]
    with torch.no_grad():
        r.compare("out/up2_f1331", Binomial().up(x))
        r.compare("out/down2_f1331", Binomial().down(x))
        r.compare("out/filter_f1331", Binomial().smooth(x, padding=2)[..., :-1, :-1])
        r.compare("out/bias_act/linear", convolution(eye, bias=bias)(x))
        r.compare("out/bias_act/lrelu", convolution(eye, bias=bias, activate=True)(x))
        for key, found in r.named(r"out/conv2d_resample_(k(\d)_up(\d)_down(\d)_flip(\d))"):
            weight = r.tensor(f"in/w_{found[1]}")
            kernel, up, down, correlated = (int(found[n]) for n in range(2, 6))
            if up == 1:
                # Without upsampling the published networks correlate.
                weight = weight if correlated else weight.flip(2, 3)
                r.compare(key, convolution(weight, down=down == 2)(x))
            elif kernel == 3 and down == 1:
                # With it they convolve.
                r.compare(key, upsampling_layer(x, weight.flip(2, 3) if correlated else weight))
    without = [key for pattern in WITHOUT_COUNTERPART for key, _ in r.named(pattern)]
    assert not set(without) & r.done
    r.check(*without)


GEOMETRY = ("scale", "rotate", "aniso", "xfrac")
COLOUR = ("brightness", "contrast", "lumaflip", "hue", "saturation")
BLIT = ("xflip", "rotate90", "xint")
TOGETHER = {
    "blit": BLIT,
    "geom": GEOMETRY,
    "color": COLOUR,
    "filter": ("imgfilter",),
    "bg": (*BLIT, *GEOMETRY),
    "bgc": (*BLIT, *GEOMETRY, *COLOUR),
    "bgcf": (*BLIT, *GEOMETRY, *COLOUR, "imgfilter"),
}
"""Published names of several operations at once."""


def at_percentile(names, q, count, like):
    """The reference's fixed draws: every operation at percentile q of its distribution."""
    normal = float(torch.erfinv(torch.tensor(2 * q - 1)))  # as published: without the factor sqrt(2)
    uniform = 2 * q - 1
    value = {
        "xflip": math.floor(2 * q),
        "rotate90": math.floor(4 * q),
        "xint": uniform * 0.125,
        "scale": normal * 0.2,
        "rotate": uniform * math.pi,
        "aniso": normal * 0.2,
        "xfrac": normal * 0.125,
        "brightness": normal * 0.2,
        "contrast": normal * 0.5,
        "lumaflip": math.floor(2 * q),
        "hue": uniform * math.pi,
        "saturation": normal,
        "imgfilter": normal,
        "cutout": 0.5,
        "cutout_centre": q,
    }
    names = [*names, "cutout_centre"] if "cutout" in names else names
    record = unchanged(count, like)
    return replace(record, **{n: torch.full_like(getattr(record, n), float(value[n])) for n in names})


def test_parity_augmentation(augmentation_file, reference):
    r = reference(augmentation_file)
    image = r.tensor("in/img")
    known = {field.name for field in fields(Draw)}
    for key, found in r.named(r"out/(\w+)/p([\d.]+)"):
        names = TOGETHER.get(found[1], (found[1],))
        if known.issuperset(names):
            r.compare(key, apply(image, at_percentile(names, float(found[2]), len(image), image)))
    unit_sum = torch.tensor(SYM6) / math.sqrt(2)
    torch.testing.assert_close(unit_sum, r.tensor("meta/Hz_geom"), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(filter_bank(), r.tensor("meta/Hz_fbank"), rtol=1e-4, atol=1e-6)
    r.check()


@pytest.mark.parametrize("pattern", WITHOUT_COUNTERPART)
def test_parity_operations_without_counterpart(pattern):
    pytest.skip(f"{pattern}: {WITHOUT_COUNTERPART[pattern]}")
