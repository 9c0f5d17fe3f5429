"""Colour and quality changes of crops: stain, stain transfer, light, blur, noise, JPEG."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.slides.stains import DENSITY, STAINS, UNMIX
from napari_nucleiseg.core.training.config import AugmentConfig

UInt8Image = NDArray[np.uint8]


def jitter_stains(image: UInt8Image, strength: float, rng: np.random.Generator) -> UInt8Image:
    """Multiply each stain's density by a random gain and shift it a little.

    Parameters
    ----------
    image : ndarray of uint8, shape (y, x, 3)
        RGB.
    strength : float
        Standard deviation of the log gain.

    Notes
    -----
    Unmixing, gain and mixing are one 3 x 3 matrix on optical densities read from a table, so a crop costs about as
    much as a colour conversion (``skimage.color.rgb2hed`` is several times slower).
    """
    matrix, shift = stain_change(strength, rng)
    density = np.maximum(DENSITY[image].reshape(-1, 3) @ matrix + shift, 0)
    changed: NDArray[np.uint8] = np.clip(256 * np.exp(-density) - 1, 0, 255).astype(np.uint8).reshape(image.shape)
    return changed


def stain_change(strength: float, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw a matrix ``(3, 3)`` and a shift ``(3,)``: the optical densities of a pixel become their product and sum."""
    # The stain vectors themselves vary between laboratories: bend them a little first.
    bent = STAINS + rng.normal(0, 0.15 * strength, STAINS.shape).astype(np.float32)
    bent = np.maximum(bent, 0) / np.linalg.norm(np.maximum(bent, 0), axis=1, keepdims=True)
    gains = np.exp(rng.normal(0, strength, 3)).astype(np.float32)
    shift = (rng.normal(0, 0.05 * strength, 3).astype(np.float32) @ bent).astype(np.float32)
    return (UNMIX @ (gains[:, None] * bent)).astype(np.float32), shift


def lab_statistics(image: UInt8Image) -> NDArray[np.float32]:
    """Return mean and standard deviation of L, a, b over tissue, shape ``(2, 3)`` (Reinhard et al. 2001)."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float32)
    tissue = lab[:, 0] < 225
    lab = lab[tissue] if tissue.sum() > 100 else lab
    return np.stack([lab.mean(0), lab.std(0) + 1e-3])


def transfer_stain(image: UInt8Image, target: NDArray[np.float32], amount: float) -> UInt8Image:
    """Move the colours of `image` by `amount` (0..1) towards the LAB statistics `target`."""
    source = lab_statistics(image)
    wanted = source + amount * (target - source)
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32)
    gain = np.clip(wanted[1] / source[1], 0.5, 2.0)
    lab = (lab - source[0]) * gain + wanted[0]
    return np.asarray(cv2.cvtColor(np.clip(lab, 0, 255).astype(np.uint8), cv2.COLOR_LAB2RGB), dtype=np.uint8)


def _change_light(image: UInt8Image, strength: float, rng: np.random.Generator) -> UInt8Image:
    """Brightness, contrast, gamma, saturation and white balance."""
    levels = np.arange(256, dtype=np.float32) / 255
    tables = np.empty((256, 3), np.float32)
    gamma = np.exp(rng.normal(0, strength))
    contrast, brightness = 1 + rng.normal(0, strength), rng.normal(0, 0.5 * strength)
    for channel in range(3):
        balance = 1 + rng.normal(0, 0.4 * strength)
        tables[:, channel] = ((levels**gamma - 0.6) * contrast + 0.6 + brightness) * balance
    out = np.asarray(cv2.LUT(image, tables[None]), np.float32)
    # Three times as quick as the mean along an axis of three.
    grey = ((out[..., 0] + out[..., 1] + out[..., 2]) / np.float32(3))[..., None]
    vivid = grey + (out - grey) * np.float32(1 + rng.normal(0, 1.5 * strength))
    changed: NDArray[np.uint8] = (np.clip(vivid, 0, 1) * 255).astype(np.uint8)
    return changed


def augment(
    image: UInt8Image, config: AugmentConfig, colours: Sequence[NDArray[np.float32]], rng: np.random.Generator
) -> UInt8Image:
    """Return a changed copy of a crop ``(y, x, 3)`` uint8; `colours` are LAB statistics to transfer to."""
    if colours and rng.random() < config.stain_transfer:
        image = transfer_stain(image, colours[int(rng.integers(len(colours)))], float(rng.uniform(0.5, 1)))
    if config.stain and rng.random() < 0.8:
        image = jitter_stains(image, config.stain, rng)
    if config.colour and rng.random() < 0.7:
        image = _change_light(image, config.colour, rng)
    return _degrade(image, config, rng)


def _degrade(image: UInt8Image, config: AugmentConfig, rng: np.random.Generator) -> UInt8Image:
    if config.blur_px and rng.random() < 0.35:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.2, config.blur_px))).astype(np.uint8)
    elif rng.random() < 0.15:
        soft = cv2.GaussianBlur(image, (0, 0), 1.0).astype(np.float32)
        image = np.clip(image + float(rng.uniform(0.3, 1.0)) * (image - soft), 0, 255).astype(np.uint8)
    if config.noise and rng.random() < 0.3:
        noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(255 * rng.uniform(0, config.noise))
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < config.jpeg:
        quality = int(rng.integers(30, 90))
        _, code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), dtype=np.uint8)
    return image
