"""CycleGAN's networks: as published ("reference"), and as a document on lazy labels has them ("document").

Zhu et al. 2017, "CycleGAN", section 7.2: a residual generator, and the 70 x 70 PatchGAN of Isola et al. 2017,
"pix2pix", section 6.1.2. Images are (B, C, H, W) in [-1, 1], of any height and width: a generator continues
them by reflection to a multiple of what it needs, and cuts its answer back. Weights come from the global
generator of torch, N(0, 0.02).

A convolution that is normalised afterwards has no bias, for the normalisation takes it away again.
"""

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewmask.core.errors import ConfigError, ShapeError
from fewmask.networks.instancenorm import instance_norm
from fewmask.networks.precise import in_float32
from fewmask.networks.reflected import ReflectConv2d, cut, whole

SLOPE = 0.2
"""Of the discriminators' leaky ReLU."""

Norm = Literal["instance", "batch"]
Down = Literal["stride", "maxpool2"]


def initialise(network: nn.Module) -> None:
    """Convolutions N(0, 0.02), gains of batch norm N(1, 0.02), biases 0; channels last in memory."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, float(isinstance(module, nn.BatchNorm2d)), 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class Translator(nn.Module):
    """A network from images to images, (B, in, H, W) in [-1, 1] -> (B, out, H, W) in [-1, 1]."""

    independent: bool
    """Whether an image's answer never depends on its neighbours in the batch, also while training."""
    multiple: int
    """Images are continued to a multiple of so many pixels."""
    smallest: int
    """The shortest side of an image, in pixels."""

    def __init__(self, channels_in: int, channels_out: int, width: int, blocks: int) -> None:
        super().__init__()
        if min(channels_in, channels_out, width) < 1 or blocks < 0:
            raise ConfigError(
                "a translator of images cannot be built",
                found=f"{channels_in} to {channels_out} channels, width {width}, {blocks} blocks",
                expected="at least one channel and width",
            )
        self.channels_in, self.channels_out = channels_in, channels_out

    def forward(self, image: Tensor) -> Tensor:
        """The translation; raises `ShapeError` for another number of channels, or too small an image."""
        if image.shape[1] != self.channels_in:
            raise ShapeError(
                "images have another number of channels than the translator",
                found=f"{image.shape[1]}",
                expected=f"{self.channels_in}",
            )
        x = whole(image, self.multiple, self.smallest)
        return cut(self.translate(x.contiguous(memory_format=torch.channels_last)), image)

    def translate(self, x: Tensor) -> Tensor:
        """The same for images whose sides are multiples."""
        raise NotImplementedError


class ResNetGenerator(Translator):
    """The published generator: c7s1-f, d2f, d4f, residual blocks, u2f, uf, c7s1-out, tanh.

    Args:
        channels_in: channels of the images.
        channels_out: channels of the answer.
        width: f, channels of the first convolution (published: 64).
        blocks: residual blocks: 9, or 6 for images up to 128 px.
    """

    independent = True
    multiple, smallest = 4, 8

    def __init__(self, channels_in: int, channels_out: int, *, width: int = 64, blocks: int = 9) -> None:
        super().__init__(channels_in, channels_out, width, blocks)
        self.stem = ReflectConv2d(channels_in, width, 7)
        self.down = nn.ModuleList(
            nn.Conv2d(n * width, 2 * n * width, 3, stride=2, padding=1, bias=False) for n in (1, 2)
        )
        self.blocks = nn.ModuleList(ResidualBlock(4 * width) for _ in range(blocks))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * n * width, n * width, 3, 2, padding=1, output_padding=1, bias=False)
            for n in (2, 1)
        )
        self.last = ReflectConv2d(width, channels_out, 7, bias=True)
        initialise(self)

    def translate(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W); H and W multiples of 4."""
        x = instance_norm(self.stem(x), slope=0.0)
        for down in self.down:
            x = instance_norm(down(x), slope=0.0)
        for block in self.blocks:
            x = block(x)
        for up in self.up:
            x = instance_norm(up(x), slope=0.0)
        return _squashed(self.last(x))


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ReflectConv2d(channels, channels, 3)
        self.second = ReflectConv2d(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x + instance_norm(self.second(instance_norm(self.first(x), slope=0.0)))


@in_float32
def _squashed(x: Tensor) -> Tensor:
    return torch.tanh(x)


class DocumentGenerator(Translator):
    """The document's generator: three convolutions down, six residual blocks, three transposed ones up.

    Down, each: convolution 3 x 3 that doubles the features, ReLU, batch norm. The document gives batch norm
    "a kernel of 2 x 2"; it has none, and 2 x 2 is read as the window by which the image is halved.

    Args:
        channels_in: channels of the images.
        channels_out: channels of the answer.
        width: f, features after the first convolution.
        blocks: residual blocks, with batch norm.
        down: "stride": convolutions with stride 2; "maxpool2": the largest of 2 x 2 after batch norm.
    """

    independent = False
    multiple, smallest = 8, 16

    def __init__(
        self, channels_in: int, channels_out: int, *, width: int = 64, blocks: int = 6, down: Down = "stride"
    ) -> None:
        super().__init__(channels_in, channels_out, width, blocks)
        widths = (channels_in, width, 2 * width, 4 * width)
        stride = 2 if down == "stride" else 1
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride, padding=1), nn.ReLU(), nn.BatchNorm2d(after)]
            layers += [nn.MaxPool2d(2)] if down == "maxpool2" else []
        layers += [DocumentBlock(4 * width) for _ in range(blocks)]
        for before, after in ((4 * width, 2 * width), (2 * width, width)):
            layers += [_doubling(before, after, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        layers.append(_doubling(width, channels_out, bias=True))
        self.layers = nn.Sequential(*layers)
        initialise(self)

    def translate(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W); H and W multiples of 8."""
        return _squashed(self.layers(x))


def _doubling(before: int, after: int, *, bias: bool) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1, bias=bias)


class DocumentBlock(nn.Module):
    """x + BN(conv(relu(BN(conv(x))))), (B, C, H, W), zeros around."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        changed: Tensor = self.layers(x)
        return x + changed


class PatchDiscriminator(nn.Module):
    """4 x 4 convolutions down to one number per patch; three halvings see 70 x 70 pixels each.

    Args:
        channels: channels of the images; of pix2pix, of both images together.
        width: features of the first convolution (published: 64), doubled by each of the next up to 8 times.
        layers: convolutions with stride 2.
        norm: of all convolutions but the first and the last.
    """

    def __init__(self, channels: int, *, width: int = 64, layers: int = 3, norm: Norm = "instance") -> None:
        super().__init__()
        if min(channels, width, layers) < 1:
            raise ConfigError(
                "a discriminator of patches cannot be built",
                found=f"{channels} channels, width {width}, {layers} layers",
                expected="at least one of each",
            )
        self.channels, self.independent = channels, norm == "instance"
        self.smallest = 3 * 2**layers
        """The shortest side of an image, in pixels."""
        widths = [width * min(2**n, 8) for n in range(layers + 1)]
        self.first = nn.Conv2d(channels, width, 4, stride=2, padding=1)
        self.inner = nn.ModuleList(
            nn.Conv2d(widths[n], widths[n + 1], 4, 2 if n + 1 < layers else 1, padding=1, bias=False)
            for n in range(layers)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(w) for w in widths[1:] if norm == "batch")
        self.last = nn.Conv2d(widths[-1], 1, 4, padding=1)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, 1, h, w): about 1 for real patches, about 0 for others.

        Raises `ShapeError` when a side is shorter than `smallest`.
        """
        _refuse_small(image, self.smallest)
        x = F.leaky_relu(self.first(image.contiguous(memory_format=torch.channels_last)), SLOPE)
        for number, convolution in enumerate(self.inner):
            x = convolution(x)
            if self.independent:
                x = instance_norm(x, slope=SLOPE)
            else:
                x = F.leaky_relu(self.norms[number](x), SLOPE)
        answer: Tensor = self.last(x)
        return answer.float()


class DocumentDiscriminator(nn.Module):
    """The document's four convolutions with batch norm and leaky ReLU; a patch is 46 x 46 pixels.

    channels: of the images; width: features of the first convolution, doubled by the next two.
    """

    independent = False
    smallest = 16

    def __init__(self, channels: int, *, width: int = 64) -> None:
        super().__init__()
        self.channels = channels
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=1),
            nn.LeakyReLU(SLOPE),
            *_halving(width),
            *_halving(2 * width),
            nn.Conv2d(4 * width, 1, 4, padding=1),
        )
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, 1, h, w), as `PatchDiscriminator`."""
        _refuse_small(image, self.smallest)
        answer: Tensor = self.layers(image.contiguous(memory_format=torch.channels_last))
        return answer.float()


def _halving(width: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(width, 2 * width, 4, stride=2, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(2 * width), nn.LeakyReLU(SLOPE)


def _refuse_small(image: Tensor, smallest: int) -> None:
    if min(image.shape[2:]) < smallest:
        raise ShapeError(
            "the image is too small for the discriminator",
            found=f"{image.shape[2]} x {image.shape[3]} pixels",
            expected=f"at least {smallest} a side",
            mend="Prepare larger images, or build the discriminator with fewer layers.",
        )
