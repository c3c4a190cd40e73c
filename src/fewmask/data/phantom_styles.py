"""What the phantom's scanners make of a patient: two modalities by look-up, blur, noise and offset."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from fewmask.data.phantom_patient import Body

CT_HU: Mapping[str, float] = MappingProxyType(
    {
        "air": -1000,
        "table": -150,
        "skin": 20,
        "fat": -100,
        "muscle": 55,
        "cortex": 650,
        "marrow": 190,
        "cartilage": 110,
        "fluid": 10,
        "cord": 40,
        "liver": 75,
        "heart": 60,
        "blood": 45,
        "wall": 20,
        "lung": -850,
        "lesion": 45,
    }
)
"""Modality A, like a CT: the value of each tissue in HU, without contrast agent."""

MR_UNITS: Mapping[str, float] = MappingProxyType(
    {
        "air": 4,
        "table": 4,
        "skin": 500,
        "fat": 880,
        "muscle": 300,
        "cortex": 60,
        "marrow": 640,
        "cartilage": 380,
        "fluid": 720,
        "cord": 430,
        "liver": 390,
        "heart": 420,
        "blood": 130,
        "wall": 260,
        "lung": 45,
        "lesion": 240,
    }
)
"""Modality B, like an MR, in arbitrary units. Not a monotone function of A: a lesion is as bright as the
brightest soft tissue in A, and between lung and muscle in B; fat is dark in A and the brightest in B."""

MODALITIES = ("A", "B")
"""A is like a CT, B like an MR."""


@dataclass(frozen=True)
class Style:
    """How one scanner, with one reconstruction, changes what it sees."""

    noise: str
    """Spectrum of the noise: "none", "white", "lowpass" (coarse grain) or "streak" (lateral streaks)."""
    sigma: float
    """Standard deviation of the noise, in HU (A) or units (B)."""
    psf_mm: float
    """Standard deviation of the point spread function."""
    offset: float
    """What is added everywhere but in air, in HU or units."""


STYLES: Mapping[str, Style] = MappingProxyType(
    {
        "clean": Style("none", 0, 0.0, 0),
        "white": Style("white", 18, 0.9, 0),
        "lowpass": Style("lowpass", 24, 2.4, 20),
        "streak": Style("streak", 30, 1.3, -20),
    }
)
"""Scanner styles by name."""


def tissue_values(modality: str, body: Body) -> dict[str, float]:
    """Value of each tissue of a patient in modality "A" (HU, with the patient's contrast agent) or "B"."""
    if modality == "B":
        return dict(MR_UNITS)
    agent = body.enhancement_hu
    seen = {"blood": agent, "heart": 0.35 * agent, "liver": 0.3 * agent, "lesion": 0.25 * agent}
    values = {tissue: value + seen.get(tissue, 0.0) for tissue, value in CT_HU.items()}
    return {**values, "lung": body.lung_hu}


def acquire(
    ideal: NDArray[np.float32],
    modality: str,
    style: Style,
    pixel_mm: float,
    chance: np.random.Generator,
) -> NDArray[np.int16]:
    """What the scanner records of an ideal volume (Z, Y, X): blur, offset, noise; int16, slice by slice.

    B also gets a smooth shading of up to 15 % (coil sensitivity) and the magnitude of its noise.
    """
    depth, height, width = ideal.shape
    f_y, f_x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    blur = np.exp(-2 * (np.pi * style.psf_mm / pixel_mm) ** 2 * (f_y**2 + f_x**2))
    out = np.fft.irfft2(np.fft.rfft2(ideal) * blur, s=(height, width))
    air = min(CT_HU["air"], 0) if modality == "A" else MR_UNITS["air"]
    out += style.offset * np.clip((ideal - air) / 100, 0, 1)
    if modality == "B":
        out *= _shading(height, width, chance)
    if style.noise != "none":
        white = chance.standard_normal((depth, height, width))
        grain = np.fft.irfft2(
            np.fft.rfft2(white) * noise_filter(style.noise, height, width), s=(height, width)
        )
        out += style.sigma * grain
    out = np.abs(out) if modality == "B" else np.clip(out, -1024, 3071)
    return np.rint(out).astype(np.int16)


def noise_filter(noise: str, height: int, width: int) -> NDArray[np.float64]:
    """Square root of the noise power spectrum (H, W // 2 + 1) that turns white noise of SD 1 into SD 1."""
    f_y, f_x = 2 * np.fft.fftfreq(height)[:, None], 2 * np.fft.rfftfreq(width)[None, :]
    if noise == "lowpass":
        gain = np.exp(-((f_y**2 + f_x**2) / 0.35**2))
    elif noise == "streak":
        gain = np.exp(-((f_x / 0.10) ** 2)) + 0.12
    else:
        gain = np.ones((height, width // 2 + 1))
    gain = np.broadcast_to(gain, (height, width // 2 + 1))
    # Columns of the half spectrum stand for two frequencies each, but for the first and (even width) last.
    twice = np.full(width // 2 + 1, 2.0)
    twice[0] = 1.0
    if width % 2 == 0:
        twice[-1] = 1.0
    return np.asarray(gain / np.sqrt((gain**2 * twice).sum() / (height * width)))


def _shading(height: int, width: int, chance: np.random.Generator) -> NDArray[np.float64]:
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
    a, b, c = chance.uniform(-0.05, 0.05, 3)
    return np.asarray(1 + a * x + b * y + c * x * y)
