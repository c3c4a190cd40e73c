"""CycleGAN and pix2pix the plain way: layer by layer, one pass for every use of a network.

Layers stand in the published order, so that `networks.cyclegan_names` translates their weights to ours. An
update makes the passes of the public code in its order: for CycleGAN six of the translators, the translators'
step, then real and older fake of either discriminator by themselves; for pix2pix the discriminator first.
"""

import random

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam


def drawn(network: nn.Module) -> nn.Module:
    """Weights N(0, 0.02)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, float(isinstance(module, nn.BatchNorm2d)), 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


class Block(nn.Module):
    """A residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            nn.InstanceNorm2d(width),
            nn.ReLU(True),
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            nn.InstanceNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        y: Tensor = x + self.conv_block(x)
        return y


class Wrapped(nn.Module):
    """A list of layers named "model"."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """One layer after the other."""
        y: Tensor = self.model(x)
        return y


def resnet(channels: int, width: int = 64, blocks: int = 6) -> nn.Module:
    """The residual generator."""
    f = width
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(channels, f, 7), nn.InstanceNorm2d(f), nn.ReLU(True)]
    for n in (1, 2):
        layers += [nn.Conv2d(n * f, 2 * n * f, 3, 2, 1), nn.InstanceNorm2d(2 * n * f), nn.ReLU(True)]
    layers += [Block(4 * f) for _ in range(blocks)]
    for n in (2, 1):
        up = nn.ConvTranspose2d(2 * n * f, n * f, 3, 2, padding=1, output_padding=1)
        layers += [up, nn.InstanceNorm2d(n * f), nn.ReLU(True)]
    return drawn(Wrapped(*layers, nn.ReflectionPad2d(3), nn.Conv2d(f, channels, 7), nn.Tanh()))


def patches(channels: int, width: int = 64, *, batch_norm: bool = False) -> nn.Module:
    """The 70 x 70 PatchGAN."""
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2, True)]
    for n, stride in ((1, 2), (2, 2), (4, 1)):
        layers.append(nn.Conv2d(n * width, 2 * n * width, 4, stride, 1, bias=not batch_norm))
        layers.append((nn.BatchNorm2d if batch_norm else nn.InstanceNorm2d)(2 * n * width))
        layers.append(nn.LeakyReLU(0.2, True))
    return drawn(Wrapped(*layers, nn.Conv2d(8 * width, 1, 4, 1, 1)))


class Level(nn.Module):
    """A level of the U-Net around the next inner one."""

    def __init__(self, level: int, depth: int, channels: int, width: int, dropout: float) -> None:
        super().__init__()
        outside, inside = (width * min(2 ** max(n, 0), 8) for n in (level - 1, level))
        last = level == depth - 1
        self.outermost = level == 0
        inner = [] if last else [Level(level + 1, depth, channels, width, dropout)]
        into = inside * (1 if last else 2)
        if self.outermost:
            down = [nn.Conv2d(channels, inside, 4, 2, 1, bias=False)]
            up = [nn.ReLU(True), nn.ConvTranspose2d(into, channels, 4, 2, 1), nn.Tanh()]
        else:
            down = [nn.LeakyReLU(0.2, True), nn.Conv2d(outside, inside, 4, 2, 1, bias=False)]
            down += [] if last else [nn.BatchNorm2d(inside)]
            up = [nn.ReLU(True), nn.ConvTranspose2d(into, outside, 4, 2, 1, bias=False)]
            up += [nn.BatchNorm2d(outside)]
            up += [nn.Dropout(dropout)] if level >= 4 and not last else []
        self.model = nn.Sequential(*down, *inner, *up)

    def forward(self, x: Tensor) -> Tensor:
        """The level's answer beside what it was given."""
        y: Tensor = self.model(x)
        return y if self.outermost else torch.cat([x, y], dim=1)


def unet(channels: int, width: int = 64, depth: int = 7, dropout: float = 0.5) -> nn.Module:
    """The U-Net of pix2pix."""
    whole = nn.Module()
    level = Level(0, depth, channels, width, dropout)
    whole.model = level
    whole.forward = level.forward  # type: ignore[method-assign]
    return drawn(whole)


class Pool:
    """Older images, as published."""

    def __init__(self, size: int = 50) -> None:
        self.size, self.images, self.chance = size, list[Tensor](), random.Random(0)

    def query(self, images: Tensor) -> Tensor:
        """The same number of images."""
        given = []
        for image in images.detach().split(1):
            if len(self.images) < self.size:
                self.images.append(image)
                given.append(image)
            elif self.chance.uniform(0, 1) > 0.5:
                place = self.chance.randint(0, self.size - 1)
                given.append(self.images[place].clone())
                self.images[place] = image
            else:
                given.append(image)
        return torch.cat(given)


def squares(answer: Tensor, wanted: float) -> Tensor:
    """The least squares of LSGAN."""
    return F.mse_loss(answer, torch.full_like(answer, wanted))


class CycleStep:
    """One update of CycleGAN, as the public code orders it. `ab`, `ba`, `judge_a`, `judge_b` are networks."""

    def __init__(self, ab: nn.Module, ba: nn.Module, judge_a: nn.Module, judge_b: nn.Module) -> None:
        self.ab, self.ba, self.judge_a, self.judge_b = ab, ba, judge_a, judge_b
        self.drawing = [*ab.parameters(), *ba.parameters()]
        self.judging = [*judge_a.parameters(), *judge_b.parameters()]
        self.adam_g, self.adam_d = (Adam(p, 2e-4, betas=(0.5, 0.999)) for p in (self.drawing, self.judging))
        self.pools = Pool(), Pool()

    def __call__(self, a: Tensor, b: Tensor) -> None:
        """Translators, then discriminators."""
        fake_b = self.ab(a)
        back_a = self.ba(fake_b)
        fake_a = self.ba(b)
        back_b = self.ab(fake_a)
        for parameter in self.judging:
            parameter.requires_grad_(False)
        self.adam_g.zero_grad()
        identity = F.l1_loss(self.ab(b), b) * 5 + F.l1_loss(self.ba(a), a) * 5
        fooled = squares(self.judge_b(fake_b), 1.0) + squares(self.judge_a(fake_a), 1.0)
        cycle = F.l1_loss(back_a, a) * 10 + F.l1_loss(back_b, b) * 10
        (fooled + cycle + identity).backward()
        self.adam_g.step()
        for parameter in self.judging:
            parameter.requires_grad_(True)
        self.adam_d.zero_grad()
        for judge, real, fake, pool in (
            (self.judge_b, b, fake_b, self.pools[0]),
            (self.judge_a, a, fake_a, self.pools[1]),
        ):
            true = squares(judge(real), 1.0)
            false = squares(judge(pool.query(fake)), 0.0)
            ((true + false) * 0.5).backward()
        self.adam_d.step()


class PairStep:
    """One update of pix2pix: discriminator of pairs, then generator."""

    def __init__(self, generator: nn.Module, judge: nn.Module) -> None:
        self.generator, self.judge = generator, judge
        self.adam_g, self.adam_d = (
            Adam(network.parameters(), 2e-4, betas=(0.5, 0.999)) for network in (generator, judge)
        )

    def __call__(self, a: Tensor, b: Tensor) -> None:
        """From images a to b."""
        fake = self.generator(a)
        self.judge.requires_grad_(True)
        self.adam_d.zero_grad()
        false = self.judge(torch.cat([a, fake], dim=1).detach())
        true = self.judge(torch.cat([a, b], dim=1))
        loss = F.binary_cross_entropy_with_logits(false, torch.zeros_like(false))
        loss = loss + F.binary_cross_entropy_with_logits(true, torch.ones_like(true))
        (loss * 0.5).backward()
        self.adam_d.step()
        self.judge.requires_grad_(False)
        self.adam_g.zero_grad()
        answer = self.judge(torch.cat([a, fake], dim=1))
        fooled = F.binary_cross_entropy_with_logits(answer, torch.ones_like(answer))
        (fooled + F.l1_loss(fake, b) * 100).backward()
        self.adam_g.step()
