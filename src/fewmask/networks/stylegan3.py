"""StyleGAN3: alias-free generators, translation (T) and rotation (R) equivariant.

Karras et al. 2021, "Alias-Free Generative Adversarial Networks". Written from the paper. Configuration T is
the default; R has `conv_kernel=1`, `use_radial_filters=True` and twice `channel_base` and `channel_max`.

Images are (B, C, H, W) in about [-1, 1], square, any number of channels, 16-1024 px. A latent z is N(0, I);
its style w is one vector for the Fourier input and one per layer: ws (B, num_layers + 2, w_dim). There is no
noise. Activations carry a margin around the image, see `Feature.margin`.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fewmask.networks.aliasfree import FilteredLeakyReLU, lowpass
from fewmask.networks.equalised import EqualLinear
from fewmask.networks.generator import Feature, ImageGenerator, Mean, Noise, Synthesis
from fewmask.networks.mapping import MappingNetwork
from fewmask.networks.modulated import modulated_convolution
from fewmask.networks.stylegan2 import resolutions


@dataclass(frozen=True)
class Design:
    """The numbers that shape a synthesis network (section 3.2 and appendix C); see `Generator`."""

    resolution: int
    channels: int
    channel_base: int
    channel_max: int
    num_layers: int
    num_critical: int
    first_cutoff: float
    first_stopband: float
    last_stopband_rel: float
    margin_size: int
    output_scale: float
    conv_kernel: int
    filter_size: int
    lrelu_upsampling: int
    use_radial_filters: bool
    conv_clamp: float | None
    magnitude_ema_beta: float


@dataclass(frozen=True)
class Band:
    """A signal between two layers; frequencies in cycles per image.

    cutoff, half_width: of its low-pass filter and of the transition band; rate: sampling rate; size: pixels
    with margins; channels: how many.
    """

    cutoff: float
    half_width: float
    rate: int
    size: int
    channels: int


def bands(design: Design) -> list[Band]:
    """The output of each layer: cutoff and stopband grow geometrically, then stay (section 3.2)."""
    steps = np.arange(design.num_layers + 1) / (design.num_layers - design.num_critical)
    last = design.resolution / 2
    powers = np.minimum(steps, 1)
    cutoffs = design.first_cutoff * (last / design.first_cutoff) ** powers
    stopbands = design.first_stopband * (last * design.last_stopband_rel / design.first_stopband) ** powers
    rates = np.exp2(np.ceil(np.log2(np.minimum(stopbands * 2, design.resolution))))
    half_widths = np.maximum(stopbands, rates / 2) - cutoffs
    sizes = rates + design.margin_size * 2
    sizes[-2:] = design.resolution
    channels = np.rint(np.minimum(design.channel_base / 2 / cutoffs, design.channel_max))
    channels[-1] = design.channels
    found = zip(cutoffs, half_widths, rates, sizes, channels, strict=True)
    return [Band(float(c), float(h), int(r), int(s), int(n)) for c, h, r, s, n in found]


class FourierInput(nn.Module):
    """Waves of fixed random frequency, turned and moved by the style, mixed by a learned matrix (appendix F).

    `transform` (3, 3) is a user's own: it acts on the image's coordinates, x and y from -0.5 to 0.5 over the
    image, inversely, as of an image that is sampled.
    """

    frequencies: Tensor
    freqs: Tensor
    phases: Tensor
    transform: Tensor

    def __init__(self, w_dim: int, band: Band) -> None:
        super().__init__()
        self.band = band
        waves = torch.randn(band.channels, 2)
        radius = waves.norm(dim=1, keepdim=True)
        # Spread evenly over the disc of radius `cutoff`.
        waves = waves / (radius * radius.square().exp() ** 0.25) * band.cutoff
        self.weight = nn.Parameter(torch.randn(band.channels, band.channels))
        self.affine = EqualLinear(w_dim, 4)
        nn.init.zeros_(self.affine.weight)
        with torch.no_grad():
            self.affine.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        self.register_buffer("freqs", waves)
        self.register_buffer("phases", torch.rand(band.channels) - 0.5)
        self.register_buffer("transform", torch.eye(3))

    def forward(self, w: Tensor) -> Tensor:
        """(B, w_dim) -> (B, channels, size, size)."""
        band = self.band
        move = self._move(w)
        waves = self.freqs @ move[:, :2, :2]
        phases = self.phases + (self.freqs @ move[:, :2, 2:]).squeeze(2)
        # What a user's transform lifts above the band fades out.
        amplitude = (1 - (waves.norm(dim=2) - band.cutoff) / (band.rate / 2 - band.cutoff)).clamp(0, 1)
        axis = (torch.arange(band.size, dtype=w.dtype, device=w.device) + 0.5 - band.size / 2) / band.rate
        across = axis[None, :, None] * waves[:, None, :, 0]
        along = axis[None, :, None] * waves[:, None, :, 1] + phases[:, None]
        angle = across[:, None] + along[:, :, None]
        sines = torch.sin(angle * (2 * math.pi)) * amplitude[:, None, None]
        x: Tensor = sines @ (self.weight.t() / math.sqrt(band.channels))
        return x.permute(0, 3, 1, 2)

    def _move(self, w: Tensor) -> Tensor:
        """Rotation, then translation, then the user's transform, (B, 3, 3)."""
        t: Tensor = self.affine(w)
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        cos, sin, x, y = t.unbind(dim=1)
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        rotation = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], dim=1).view(-1, 3, 3)
        translation = torch.stack([one, zero, -x, zero, one, -y, zero, zero, one], dim=1).view(-1, 3, 3)
        return rotation @ translation @ self.transform


class AliasFreeLayer(nn.Module):
    """Modulated convolution and filtered leaky ReLU (section 3.2, appendix B.2).

    The last layer, to the image, has neither demodulation, filter nor nonlinearity. The input is divided by
    the running root mean square of its magnitude, of which `magnitude_ema` is the square.
    """

    magnitude_ema: Tensor

    def __init__(
        self, w_dim: int, before: Band, after: Band, design: Design, *, last: bool, critical: bool
    ) -> None:
        super().__init__()
        self.last, self.beta = last, design.magnitude_ema_beta
        self.kernel = 1 if last else design.conv_kernel
        self.affine = EqualLinear(w_dim, before.channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(after.channels, before.channels, self.kernel, self.kernel))
        self.bias = nn.Parameter(torch.zeros(after.channels))
        self.register_buffer("magnitude_ema", torch.ones(()))
        self.clamp = design.conv_clamp
        self.activation: FilteredLeakyReLU | None = None
        self.unseen = 0
        if not last:
            self.activation, self.unseen = _activation(before, after, design, self.kernel, critical)

    def forward(self, x: Tensor, w: Tensor, mean: Mean | None) -> Tensor:
        """(B, in, size, size), (B, w_dim) -> (B, out, size', size')."""
        if mean is not None:
            now = mean(x.detach().float().square().mean())
            self.magnitude_ema.copy_(now.lerp(self.magnitude_ema, self.beta))
        styles = self.affine(w)
        input_gain = self.magnitude_ema.rsqrt()
        if self.activation is None:
            styles = styles * (input_gain / math.sqrt(styles.shape[1]))
            image = torch.einsum("bihw,oi,bi->bohw", x, self.weight[:, :, 0, 0], styles)
            image = image + self.bias[:, None, None]
            return image if self.clamp is None else image.clamp(-self.clamp, self.clamp)
        padding = self.kernel - 1 - self.unseen
        if padding < 0:
            x, padding = x[..., -padding:padding, -padding:padding], 0
        x = modulated_convolution(x, styles, self.weight, padding)
        scale = self._demodulation(styles) * input_gain
        y: Tensor = self.activation(x, scale, self.bias)
        return y

    def _demodulation(self, styles: Tensor) -> Tensor:
        """1 / sqrt(sum (w s)^2), (B, out); its epsilon is relative to the size of weights and styles."""
        squares = self.weight.square().sum(dim=(2, 3))
        power = styles.square()
        epsilon = 1e-8 * self.weight.square().mean(dim=(1, 2, 3)) * power.mean(dim=1, keepdim=True)
        return (power @ squares.t() + epsilon).rsqrt()


def _activation(
    before: Band, after: Band, design: Design, kernel: int, critical: bool
) -> tuple[FilteredLeakyReLU, int]:
    """The filters between two bands, at `lrelu_upsampling` times the higher of their sampling rates.

    Also how many pixels on each side of the convolution's output no filter looks at, since the size shrinks
    or the old margin is wider than the new one: they are not computed.
    """
    rate = max(before.rate, after.rate) * design.lrelu_upsampling
    up, down = round(rate / before.rate), round(rate / after.rate)
    taps_up = design.filter_size * up if up > 1 else 1
    taps_down = design.filter_size * down if down > 1 else 1
    radial = design.use_radial_filters and not critical
    up_filter = lowpass(taps_up, before.cutoff, before.half_width * 2, rate)
    down_filter = lowpass(taps_down, after.cutoff, after.half_width * 2, rate, radial=radial)
    size, clamp = before.size + kernel - 1, design.conv_clamp
    whole = FilteredLeakyReLU(size, after.size, up, down, up_filter, down_filter, clamp=clamp)
    unseen = min(whole.up.first, size - whole.up.first - whole.up.count)
    seen = size - 2 * unseen
    return FilteredLeakyReLU(seen, after.size, up, down, up_filter, down_filter, clamp=clamp), unseen


class SynthesisNetwork(Synthesis):
    """ws -> image: the Fourier input, `num_layers` filtered layers, and the layer to the image."""

    frame_ws = 1

    def __init__(self, w_dim: int, design: Design) -> None:
        super().__init__()
        plan = self.plan = bands(design)
        self.num_ws = design.num_layers + 2
        self.output_scale = design.output_scale
        self.input = FourierInput(w_dim, plan[0])
        befores = [plan[0], *plan[:-1]]
        self.layers = nn.ModuleList(
            AliasFreeLayer(
                w_dim,
                before,
                after,
                design,
                last=n == design.num_layers,
                critical=n >= design.num_layers - design.num_critical,
            )
            for n, (before, after) in enumerate(zip(befores, plan, strict=True))
        )
        self.names = [f"L{n}_{band.size}_{band.channels}" for n, band in enumerate(plan)]
        self.margins = [(band.size - band.rate) // 2 for band in plan]

    def trace(
        self, ws: Tensor, noise: Noise, update_average: Mean | None = None
    ) -> tuple[list[Feature], Tensor]:
        """The activations of every layer but the image's, and the image; `noise` has no meaning here."""
        styles = ws.unbind(dim=1)
        x = self.input(styles[0])
        features = []
        for n, (layer, w) in enumerate(zip(self.layers, styles[1:], strict=True)):
            x = layer(x, w, update_average)
            features.append(Feature(self.names[n], x.shape[-1], x, self.margins[n]))
        return features[:-1], x * self.output_scale

    def forward(self, ws: Tensor, noise: Noise = "random", *, update_average: Mean | None = None) -> Tensor:
        """(B, num_ws, w_dim) -> image (B, C, resolution, resolution), not clipped to [-1, 1].

        update_average: move the running magnitudes of the activations towards this batch's, whose mean over
        processes it takes; None leaves them alone.
        """
        return self.trace(ws, noise, update_average)[1]


class Generator(ImageGenerator):
    """Mapping and synthesis.

    Args:
        z_dim: length of the latent z.
        w_dim: length of the style w.
        resolution: height and width of the images in pixels: a power of two, 16-1024.
        channels: channels of the images.
        channel_base: channels at cutoff f (cycles per image) are min(channel_base / 2 / f, channel_max).
        channel_max: see `channel_base`.
        mapping_layers: layers of the mapping network.
        classes: length of the label vector, 0 for none.
        num_layers: layers before the one that makes the image.
        num_critical: how many of the last layers are sampled critically.
        first_cutoff: cutoff of the first layer in cycles per image.
        first_stopband: least stopband of the first layer in cycles per image.
        last_stopband_rel: least stopband of the last layer in units of its cutoff.
        margin_size: pixels around the image in all but the last layers.
        output_scale: factor on the image.
        conv_kernel: 3 (T) or 1 (R).
        filter_size: taps of a low-pass filter at the lower of its sampling rates.
        lrelu_upsampling: how much finer the sampling is at the nonlinearity.
        use_radial_filters: downsample with radially symmetric filters (R), but in critical layers.
        conv_clamp: limit of the absolute activations; None for no limit.
        magnitude_ema_beta: the old share in the running magnitudes; 0.5^(batch / 20 000) as published.
    """

    def __init__(
        self,
        z_dim: int,
        w_dim: int,
        resolution: int,
        channels: int,
        *,
        channel_base: int = 32768,
        channel_max: int = 512,
        mapping_layers: int = 2,
        classes: int = 0,
        num_layers: int = 14,
        num_critical: int = 2,
        first_cutoff: float = 2.0,
        first_stopband: float = 2**2.1,
        last_stopband_rel: float = 2**0.3,
        margin_size: int = 10,
        output_scale: float = 0.25,
        conv_kernel: int = 3,
        filter_size: int = 6,
        lrelu_upsampling: int = 2,
        use_radial_filters: bool = False,
        conv_clamp: float | None = 256.0,
        magnitude_ema_beta: float = 0.999,
    ) -> None:
        super().__init__()
        resolutions(resolution)
        self.z_dim, self.w_dim = z_dim, w_dim
        self.resolution, self.channels, self.classes = resolution, channels, classes
        design = Design(
            resolution,
            channels,
            channel_base,
            channel_max,
            num_layers,
            num_critical,
            first_cutoff,
            first_stopband,
            last_stopband_rel,
            margin_size,
            output_scale,
            conv_kernel,
            filter_size,
            lrelu_upsampling,
            use_radial_filters,
            conv_clamp,
            magnitude_ema_beta,
        )
        self.synthesis = SynthesisNetwork(w_dim, design)
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(
            z_dim, w_dim, layers=mapping_layers, classes=classes, num_ws=self.num_ws
        )
