"""How much noise there is, and how much is left; the only module that needs scikit-image."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

try:
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity
    from skimage.restoration import estimate_sigma as estimate
except ImportError as error:
    raise ImportError(
        'estimating noise needs scikit-image: pip install "nonlocalnet[denoise]"'
    ) from error

SMALLEST = 8  # pixels on each side that an estimate takes: it halves them


def estimate_sigma(x: Tensor) -> float:
    """Standard deviation of white noise in x (N, C, T, H, W), in its units.

    By the median of the finest wavelet coefficients (Donoho, Johnstone, Biometrika 81, 1994), of
    each channel of each image; the mean of those. Of what is flat it is 0.

    Raises `ValueError` for images too small to tell.
    """
    if min(x.shape[3:]) < SMALLEST:
        raise ValueError(
            f"of an image of {x.shape[4]} x {x.shape[3]} pixels no noise can be estimated; it takes"
            f" {SMALLEST} x {SMALLEST}, so give sigma"
        )
    images = x.transpose(1, 2).flatten(0, 1).double().cpu().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a median of none, where all is flat
        found = [estimate(channel) for image in images for channel in image]
    return float(np.nan_to_num(found).mean())


class Likeness(NamedTuple):
    """How like an image is to another: PSNR in dB, SSIM up to 1."""

    psnr: float
    ssim: float


def likeness(image: NDArray[np.generic], reference: NDArray[np.generic], white: float) -> Likeness:
    """Of (H, W) or (H, W, C) images; infinite PSNR where they are equal."""
    image, reference = np.asarray(image, np.float64), np.asarray(reference, np.float64)
    with np.errstate(divide="ignore"):
        psnr = peak_signal_noise_ratio(reference, image, data_range=white)
    side = min(7, *image.shape[:2])
    if side < 3:
        return Likeness(float(psnr), 1.0 if np.array_equal(image, reference) else float("nan"))
    ssim = structural_similarity(
        reference,
        image,
        data_range=white,
        win_size=side - (side % 2 == 0),
        channel_axis=-1 if image.ndim == 3 else None,
    )
    return Likeness(float(psnr), float(ssim))


def psnr(x: Tensor, reference: Tensor, white: float) -> float:
    """In dB, of tensors of one shape."""
    error = (x.double() - reference.double()).square().mean()
    return float(10 * torch.log10(white**2 / error))
