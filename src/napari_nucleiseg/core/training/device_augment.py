"""Colour and quality changes of whole batches on the device; the same as `augment` does to one crop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from napari_nucleiseg.core.slides.stains import STAINS, UNMIX
from napari_nucleiseg.core.training.config import AugmentConfig

# sRGB's primaries in XYZ over D65's white, and luma with the two differences of colour of JFIF.
_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_XYZ /= np.array([[0.950456], [1.0], [1.088754]])
_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_TISSUE_L = 225 * 100 / 255  # lighter is glass, as `augment.lab_statistics` has it
BLOCK = 8
# How coarsely JPEG rounds luma and colour of each frequency at quality 50 (ITU-T T.81, annex K).
_LUMA = (
    "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62 "
    "18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"
)
_CHROMA = "17 18 24 47 18 21 26 66 24 26 56 99 47 66 99 99"


def lab_of(rgb: Tensor) -> Tensor:
    """Return L (0..100), a, b of sRGB in 0..255, ``(batch, 3, y, x)``."""
    x = (rgb / 255).clamp(0, 1)
    linear = torch.where(x > 0.04045, ((x + 0.055) / 1.055) ** 2.4, x / 12.92)
    xyz = torch.einsum("ij,bjyx->biyx", _tensor(_XYZ, rgb), linear)
    f = torch.where(xyz > 0.008856, xyz.clamp(min=1e-8) ** (1 / 3), 7.787 * xyz + 16 / 116)
    return torch.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], dim=1)


def rgb_of(lab: Tensor) -> Tensor:
    """Return sRGB in 0..255 of L, a, b; the inverse of `lab_of`."""
    fy = (lab[:, 0] + 16) / 116
    f = torch.stack([fy + lab[:, 1] / 500, fy, fy - lab[:, 2] / 200], dim=1)
    xyz = torch.where(f > 0.206893, f**3, (f - 16 / 116) / 7.787)
    linear = torch.einsum("ij,bjyx->biyx", _tensor(np.linalg.inv(_XYZ), lab), xyz).clamp(0, 1)
    x = torch.where(linear > 0.0031308, 1.055 * linear.clamp(min=1e-8) ** (1 / 2.4) - 0.055, 12.92 * linear)
    return x * 255


class DeviceAugmentation:
    """Changes batches of crops; which and how much is drawn for each crop.

    Parameters
    ----------
    config : AugmentConfig
        How far.
    colours : sequence of ndarray of float32, shape (2, 3)
        LAB statistics to transfer to, in the 8-bit units of `augment.lab_statistics`.
    device : torch.device
        Where batches are.
    """

    def __init__(self, config: AugmentConfig, colours: Sequence[NDArray[np.float32]], device: torch.device) -> None:
        self.config, self.device = config, device
        self.colours = np.asarray(colours, np.float64).reshape(-1, 2, 3)
        # 8-bit LAB: L * 255 / 100, a + 128, b + 128.
        self.colours[:, :, 0] *= 100 / 255
        self.colours[:, 0, 1:] -= 128

    def __call__(self, image: Tensor, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        """Return a changed batch ``(batch, 3, y, x)``, 0..255."""
        config, count = self.config, len(image)
        if len(self.colours) and config.stain_transfer:
            image = self._transfer(image, rng)
        if config.stain:
            image = _chosen(image, self._stains(image, rng), rng.random(count) < 0.8)
        if config.colour:
            image = _chosen(image, self._light(image, rng), rng.random(count) < 0.7)
        image = self._sharpness(image, rng)
        if config.noise:
            strength = 255 * rng.uniform(0, config.noise, count) * (rng.random(count) < 0.3)
            image = image + torch.randn(image.shape, device=self.device, generator=noise) * self._column(strength)
        if config.jpeg and image.shape[2] % BLOCK == image.shape[3] % BLOCK == 0:
            quality = rng.uniform(30, 90, count)
            image = _chosen(image, jpeg_like(image, self._column(quality)), rng.random(count) < config.jpeg)
        return image.clamp(0, 255)

    def _column(self, values: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(self.device).view(-1, 1, 1, 1)

    def _transfer(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        """Move the colours of some crops towards those of another picture (Reinhard et al. 2001)."""
        count = len(image)
        wanted = self.colours[rng.integers(len(self.colours), size=count)]
        amount = self._column(rng.uniform(0.5, 1, count))
        lab = lab_of(image)
        tissue = (lab[:, :1] < _TISSUE_L).float()
        tissue = torch.where(tissue.sum((2, 3), keepdim=True) > 100, tissue, torch.ones_like(tissue))
        total = tissue.sum((2, 3), keepdim=True)
        mean = (lab * tissue).sum((2, 3), keepdim=True) / total
        spread = (((lab - mean) ** 2 * tissue).sum((2, 3), keepdim=True) / total).sqrt() + 1e-3
        target_mean, target_spread = (
            torch.from_numpy(wanted[:, row].astype(np.float32)).to(self.device)[:, :, None, None] for row in (0, 1)
        )
        gain = ((spread + amount * (target_spread - spread)) / spread).clamp(0.5, 2.0)
        moved = (lab - mean) * gain + mean + amount * (target_mean - mean)
        return _chosen(image, rgb_of(moved), rng.random(count) < self.config.stain_transfer)

    def _stains(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        """Bend the stain vectors and multiply each stain's density; one matrix a crop on optical densities."""
        count, strength = len(image), self.config.stain
        bent = np.maximum(STAINS + rng.normal(0, 0.15 * strength, (count, 3, 3)), 0)
        bent /= np.linalg.norm(bent, axis=2, keepdims=True)
        gains = np.exp(rng.normal(0, strength, (count, 3)))
        shift = rng.normal(0, 0.05 * strength, (count, 1, 3)) @ bent
        matrix = UNMIX @ (gains[:, :, None] * bent)
        density = -torch.log((image + 1) / 256)
        mixed = torch.einsum("bij,biyx->bjyx", torch.from_numpy(matrix.astype(np.float32)).to(self.device), density)
        added = torch.from_numpy(shift[:, 0].astype(np.float32)).to(self.device)[:, :, None, None]
        return (256 * torch.exp(-(mixed + added).clamp(min=0)) - 1).clamp(0, 255)

    def _light(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        """Gamma, contrast, brightness, white balance, saturation."""
        count, strength = len(image), self.config.colour
        gamma = self._column(np.exp(rng.normal(0, strength, count)))
        contrast = self._column(1 + rng.normal(0, strength, count))
        brightness = self._column(rng.normal(0, 0.5 * strength, count))
        balance = torch.from_numpy(1 + rng.normal(0, 0.4 * strength, (count, 3)).astype(np.float32)).to(self.device)
        out = (((image / 255).clamp(1e-4, 1) ** gamma - 0.6) * contrast + 0.6 + brightness) * balance[:, :, None, None]
        grey = out.mean(1, keepdim=True)
        out = grey + (out - grey) * self._column(1 + rng.normal(0, 1.5 * strength, count))
        return out.clamp(0, 1) * 255

    def _sharpness(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        """Blur some crops, sharpen others."""
        count, config = len(image), self.config
        blurred = (rng.random(count) < 0.35) & (config.blur_px > 0)
        sharpened = ~blurred & (rng.random(count) < 0.15)
        sigma = np.where(blurred, rng.uniform(0.2, max(config.blur_px, 0.2), count), 1.0)
        soft = _smooth(image, self._column(sigma))
        more = self._column(rng.uniform(0.3, 1.0, count))
        sharp = (image + more * (image - soft)).clamp(0, 255)
        return _chosen(_chosen(image, soft, blurred), sharp, sharpened)


def _tensor(values: NDArray[np.float64], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)


def _chosen(image: Tensor, changed: Tensor, which: NDArray[np.bool_]) -> Tensor:
    """Return `changed` where `which` says so, crop by crop."""
    return torch.where(torch.from_numpy(which).to(image.device).view(-1, 1, 1, 1), changed, image)


def _smooth(image: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian of each crop's own `sigma` ``(batch, 1, 1, 1)``, in pixels."""
    batch, channels, height, width = image.shape
    reach = 5
    taps = torch.arange(-reach, reach + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-(taps**2) / (2 * sigma.view(-1, 1) ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    x = F.pad(image, (reach,) * 4, mode="reflect").reshape(1, batch * channels, height + 2 * reach, width + 2 * reach)
    x = F.conv2d(x, kernel[:, None, :, None], groups=batch * channels)
    x = F.conv2d(x, kernel[:, None, None, :], groups=batch * channels)
    return x.view(image.shape)


def jpeg_like(image: Tensor, quality: Tensor) -> Tensor:
    """Round the frequencies of 8 x 8 blocks as JPEG does.

    Parameters
    ----------
    image : Tensor, shape (batch, 3, y, x)
        0..255; sides are multiples of 8.
    quality : Tensor, shape (batch, 1, 1, 1)
        30 to 100 of libjpeg's scale.

    Notes
    -----
    The two planes of colour keep their resolution.
    """
    batch, _, height, width = image.shape
    ycc = _tensor(_YCC, image)
    planes = torch.einsum("ij,bjyx->biyx", ycc, image)
    planes[:, 0] -= 128
    grid = torch.arange(BLOCK, device=image.device, dtype=image.dtype)
    cosines = torch.cos((2 * grid[None, :] + 1) * grid[:, None] * torch.pi / (2 * BLOCK)) / 2
    cosines[0] /= 2**0.5
    blocks = planes.view(batch, 3, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    waves = torch.einsum("uy,bcmynx,vx->bcmunv", cosines, blocks, cosines)
    factor = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
    steps = (_tensor(_steps(), image)[None] * factor).clamp(min=1)[:, :, None, :, None, :]
    waves = torch.round(waves / steps) * steps
    planes = torch.einsum("uy,bcmunv,vx->bcmynx", cosines, waves, cosines).reshape(planes.shape)
    planes[:, 0] += 128
    return torch.einsum("ij,bjyx->biyx", torch.linalg.inv(ycc), planes).clamp(0, 255)


def _steps() -> NDArray[np.float64]:
    """Return the coarseness of luma and of both planes of colour, ``(3, 8, 8)``."""
    luma = np.array(_LUMA.split(), np.float64).reshape(BLOCK, BLOCK)
    chroma = np.full((BLOCK, BLOCK), 99.0)
    chroma[:4, :4] = np.array(_CHROMA.split(), np.float64).reshape(4, 4)
    return np.stack([luma, chroma, chroma])
