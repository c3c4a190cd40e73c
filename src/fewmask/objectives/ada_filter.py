"""Filters on what the discriminator sees: amplified frequency bands, and a blur.

Karras et al. 2020, "Training GANs with limited data", appendix B (image-space filtering); the fading blur is
that of Karras et al. 2021, "Alias-Free Generative Adversarial Networks", appendix F.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from fewmask.core.errors import ConfigError

SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)
"""Scaling filter of the symlet with two vanishing moments (Daubechies 1992, "Ten lectures on wavelets")."""

BANDS = 4
"""Frequency bands: up to 1/8, 1/8-1/4, 1/4-1/2 and above 1/2 of the highest frequency."""

POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)
"""Expected share of a natural image's power in each band (appendix B)."""


@functools.lru_cache(maxsize=1)
def filter_bank() -> Tensor:
    """One zero-phase filter per band, (BANDS, 43); their sum changes nothing.

    With H the scaling filter, the low-pass is L(z) = H(z) H(1/z) / 2 and the high-pass L(-z). Band 0 is
    L(z) L(z^2) L(z^4), band k the high-pass at z^(2^(3-k)) after the low-passes of the finer scales.
    """
    h = torch.tensor(SYM2, dtype=torch.float64)
    low = _convolve(h, h.flip(0)) / 2
    high = low * (-1.0) ** (torch.arange(len(low)) - len(low) // 2)
    bands: list[Tensor] = []
    passed = torch.ones(1, dtype=torch.float64)
    for scale in range(BANDS - 1):
        bands.insert(0, _convolve(_spread(high, 2**scale), passed))
        passed = _convolve(_spread(low, 2**scale), passed)
    bands.insert(0, passed)
    length = max(len(band) for band in bands)
    return torch.stack([F.pad(b, [(length - len(b)) // 2] * 2) for b in bands]).float()


def band_gains(amplified: Tensor) -> Tensor:
    """From log2 amplifications (B, BANDS) the gain of every band, (B, BANDS).

    Each band's amplification is followed by a normalisation that keeps the expected power (appendix B).
    """
    power = amplified.new_tensor(POWER)
    gains = torch.ones_like(amplified)
    for band in range(BANDS):
        one = torch.ones_like(amplified)
        one[:, band] = amplified[:, band].exp2()
        gains = gains * one / (power * one.square()).sum(dim=1, keepdim=True).sqrt()
    return gains


def amplify(image: Tensor, amplified: Tensor) -> Tensor:
    """Amplify the frequency bands of (B, C, H, W), each image by its row of log2 factors (B, BANDS).

    Raises:
        ConfigError: images smaller than 22 px, which the filters exceed.
    """
    kernel = band_gains(amplified) @ filter_bank().to(amplified)
    reach = kernel.shape[1] // 2
    batch, channels, height, width = image.shape
    if min(height, width) <= reach:
        raise ConfigError(
            "images are too small for the augmentation imgfilter",
            where="ada_operations",
            found=f"{height} x {width}",
            expected=f"at least {reach + 1} x {reach + 1}",
            mend="Leave imgfilter out.",
        )
    kernel = kernel.repeat_interleave(channels, dim=0)[:, None]
    flat = F.pad(image, [reach] * 4, mode="reflect").reshape(1, batch * channels, *_grown(image, reach))
    flat = F.conv2d(flat, kernel[:, :, None], groups=batch * channels)
    flat = F.conv2d(flat, kernel[..., None], groups=batch * channels)
    return flat.view_as(image)


def blur(image: Tensor, sigma: float) -> Tensor:
    """Blur (B, C, H, W) by 2^-(x / sigma)^2, sigma in pixels, zeros around; none below a sigma of 1/3."""
    reach = int(sigma * 3)
    if reach == 0:
        return image
    place = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    kernel = (place / sigma).square().neg().exp2()
    kernel = (kernel / kernel.sum())[None, None]
    flat = image.flatten(0, 1)[:, None]
    flat = F.conv2d(flat, kernel[:, :, None], padding=(0, reach))
    flat = F.conv2d(flat, kernel[..., None], padding=(reach, 0))
    return flat.view_as(image)


def _grown(image: Tensor, reach: int) -> tuple[int, int]:
    return image.shape[2] + 2 * reach, image.shape[3] + 2 * reach


def _convolve(a: Tensor, b: Tensor) -> Tensor:
    return F.conv1d(a[None, None], b.flip(0)[None, None], padding=len(b) - 1)[0, 0]


def _spread(taps: Tensor, step: int) -> Tensor:
    """Zeros between the taps: H(z^step)."""
    wide = taps.new_zeros((len(taps) - 1) * step + 1)
    wide[::step] = taps
    return wide
