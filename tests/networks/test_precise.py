"""What stays float32 in a network that computes in bfloat16."""

import torch

from fewmask.networks.precise import exact_slopes, in_float32
from fewmask.networks.stylegan2 import Discriminator, Generator

SIZE = {"channel_base": 256, "channel_max": 16}


def test_without_autocast_nothing_changes() -> None:
    @in_float32
    def kind(x: torch.Tensor) -> torch.Tensor:
        return x

    x = torch.ones(2, dtype=torch.bfloat16)
    assert kind(x) is x
    with torch.autocast("cpu", torch.bfloat16):
        assert kind(x).dtype == torch.float32
        assert kind(x.double()).dtype == torch.float64


def test_latents_image_and_logits_are_float32_and_convolutions_are_not() -> None:
    torch.manual_seed(0)
    generator, discriminator = Generator(8, 8, 32, 1, **SIZE), Discriminator(32, 1, **SIZE)
    generator.requires_grad_(False)
    discriminator.requires_grad_(False)
    z = torch.randn(4, 8)
    exact = generator.mapping(z)
    with torch.autocast("cpu", torch.bfloat16):
        ws = generator.mapping(z)
        image = generator.synthesis(ws, noise="constant")
        logits = discriminator(image)
    assert torch.equal(ws, exact)
    assert {ws.dtype, image.dtype, logits.dtype} == {torch.float32}
    plain = generator.synthesis(exact, noise="constant")
    error = float((image - plain).norm() / plain.norm())
    assert 1e-4 < error < 3e-2, "bfloat16 was at work, and did no harm"
    assert torch.allclose(logits, discriminator(image), rtol=0.1, atol=0.05)


def test_on_a_cpu_slopes_that_are_differentiated_again_are_exact() -> None:
    torch.manual_seed(0)
    discriminator, image = Discriminator(32, 1, **SIZE), torch.rand(4, 1, 32, 32)

    def gradient(precision: bool) -> torch.Tensor:
        real = image.clone().requires_grad_(True)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision), exact_slopes("cpu"):
            (slope,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
        discriminator.zero_grad()
        slope.square().sum().backward()
        return torch.cat([p.grad.flatten() for p in discriminator.parameters() if p.grad is not None])

    assert torch.equal(gradient(False), gradient(True))
