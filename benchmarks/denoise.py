"""NL-means beside OpenCV's and scikit-image's: P9, time and PSNR with the same sigma.

    python benchmarks/denoise.py [--seconds S] [--check]
    python benchmarks/denoise.py --video FILE [--frames N]

Patches of 7 x 7, noise of 25 levels on images that come with scikit-image (larger ones are their
mirror images side by side). Against scikit-image's slow mode ours has Gaussian patches as it has,
against the others uniform ones. OpenCV is given 8 bits, which it needs, and the others float. Its
h is 0.8 sigma as theirs is; it has no sigma to take off the distances.

With --video: the PSNR of a search over 1, 3 and 5 frames, on a clip to which noise is added.
"""

from __future__ import annotations

import argparse
import os
import time
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from goals import DENOISED, THREADED, denoised_part, threaded_part
from measure import Run, cpu_seconds, paired, report
from skimage import data
from skimage.restoration import denoise_nl_means

from nonlocalnet.denoise import nl_means
from nonlocalnet.noise import psnr

SIGMA, PATCH = 25.0, 7
SLOW = "scikit-image slow"


def picture(size: int, colour: str) -> np.ndarray[Any, Any]:
    """(size, size) or (size, size, 3) in 0..255."""
    whole = data.camera() if colour == "grey" else data.astronaut()
    whole = np.concatenate([whole, whole[::-1]], 0)
    whole = np.concatenate([whole, whole[:, ::-1]], 1)
    start = max(0, 384 - size) // 2
    return whole[start : start + size, start : start + size].astype(np.float64)


def noisy(clean: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return clean + np.random.default_rng(0).normal(0, SIGMA, clean.shape)


def opencv(image: np.ndarray[Any, Any], window: int) -> Run:
    levels = image.round().clip(0, 255).astype(np.uint8)
    # the same distances as of grey images, over all channels; its Color variant changes the space
    return partial(cv2.fastNlMeansDenoising, levels, None, 0.8 * SIGMA, PATCH, window)


def scikit(image: np.ndarray[Any, Any], window: int, fast: bool) -> Run:
    h = (0.8 if fast else 0.6) * SIGMA / 255
    options = {"fast_mode": fast, "channel_axis": -1 if image.ndim == 3 else None}
    given = np.clip(image / 255, 0, 1)
    return partial(denoise_nl_means, given, PATCH, window // 2, h, sigma=SIGMA / 255, **options)


def ours(image: np.ndarray[Any, Any], window: int, weights: Any) -> Run:
    x = torch.from_numpy(np.clip(image / 255, 0, 1)).float()
    x = x if x.dim() == 2 else x.permute(2, 0, 1).contiguous()
    return partial(nl_means, x, SIGMA / 255, patch=PATCH, window=window, weights=weights)


def levels_of(result: Any) -> torch.Tensor:
    """What any of them gives, (H, W) or (H, W, C) in 0..255."""
    if isinstance(result, torch.Tensor):
        return 255 * (result if result.dim() == 2 else result.permute(1, 2, 0))
    found = torch.from_numpy(np.asarray(result))
    return found if found.dtype == torch.uint8 else 255 * found


def wall_seconds(run: Run, repeats: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def row(peer: str, size: int, colour: str, window: int, seconds: float, **how: Any) -> Any:
    clean = picture(size, colour)
    image = noisy(clean)
    theirs = opencv(image, window) if peer == "OpenCV" else scikit(image, window, fast=peer != SLOW)
    mine = ours(image, window, "gaussian" if peer == SLOW else "uniform")
    quality = [psnr(levels_of(run()), torch.from_numpy(clean), 255.0) for run in (mine, theirs)]
    # a minute and more a run
    least = 1 if size < 64 or (peer == SLOW and size > 512) else 2 if peer == SLOW else 3
    found = paired(mine, theirs, seconds, least=least, **how)
    return {**found, "psnr_ours": quality[0], "psnr_theirs": quality[1]}


def speed(check: bool, seconds: float) -> dict[str, Any]:
    """P9."""
    rows = {}
    cores = os.cpu_count() or 1
    for cases, name, threads, timer in (
        (DENOISED, denoised_part, 1, cpu_seconds),
        (THREADED, threaded_part, cores, wall_seconds),
    ):
        cv2.setNumThreads(threads)
        torch.set_num_threads(threads)
        for peer, size, colour, window in cases:
            part = name(peer, size, colour, window)
            size, window = (24, 5) if check else (size, window)
            rows[part] = row(peer, size, colour, window, seconds, timer=timer)
    torch.set_num_threads(1)
    return {"rows": rows, "load": os.getloadavg()}


def search_in_time(path: str, count: int) -> None:
    """Frames of a clip with noise added: PSNR by the number of frames searched."""
    from nonlocalnet.video import Video

    with Video(path) as video:
        frames = video.frames(range(min(count, len(video)))).permute(3, 0, 1, 2)[None]
    clean = frames.float()
    still = float((clean[:, :, 1:] - clean[:, :, :-1]).abs().mean())
    generator = torch.Generator().manual_seed(0)
    given = (clean + SIGMA * torch.randn(clean.shape, generator=generator)).clamp(0, 255)
    print(f"{path}: {tuple(frames.shape)}, mean change from frame to frame {still:.2f} levels")
    print(f"noise {psnr(given, clean, 255.0):.2f} dB")
    for depth in (1, 3, 5):
        for patch_frames in (1,) if depth == 1 else (1, 3):
            start = time.process_time()
            y = nl_means(given, SIGMA, frames=depth, patch_frames=patch_frames)
            spent = time.process_time() - start
            print(
                f"search over {depth} frames, patch of {patch_frames}:"
                f" {psnr(y, clean, 255.0):.2f} dB, {spent / len(clean[0, 0]):.2f} s a frame",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="NL-means beside its peers.")
    parser.add_argument("--seconds", type=float, default=6.0, help="for each pair (default 6)")
    parser.add_argument("--check", action="store_true", help="tiny sizes; nothing is kept")
    parser.add_argument("--video", help="a clip, to which noise is added; instead of P9")
    parser.add_argument("--frames", type=int, default=12, help="of the clip (default 12)")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.video:
        search_in_time(asked.video, asked.frames)
    else:
        seconds = 0.0 if asked.check else asked.seconds
        report("P9", speed(asked.check, seconds), asked.check)
