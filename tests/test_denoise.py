"""NL-means against a brute force in float64 that is written from the equation, pixel by pixel."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from skimage.restoration import denoise_nl_means
from torch import Tensor

from nonlocalnet.denoise import NLMeans, Options, Plan, nl_means, taps
from nonlocalnet.kernels import patch_sum, patch_sum_numba, patch_sum_torch
from nonlocalnet.neighbours import Pixel, look_at, weights_of


def noisy(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """A step and a wave with noise of 0.1, in 0..1."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.linspace(0, 9, shape[-1]).sin().mul(0.2) + 0.5
    x = x.expand(shape).clone()
    x[..., shape[-2] // 2 :, :] -= 0.25
    x = x + 0.1 * torch.randn(shape, generator=generator)
    return x.clamp(0, 1).to(dtype)


def fold(i: int, size: int) -> int:
    """The pixel that a mirror shows, whose edge is not repeated."""
    while not 0 <= i < size:
        i = -i if i < 0 else 2 * (size - 1) - i
    return i


def brute_force(
    x: Tensor,
    sigma: float,
    h: float,
    patch: int,
    window: int,
    weights: str = "uniform",
    centre: str = "own",
    border: str = "inside",
    frames: int = 1,
    patch_frames: int = 1,
    corrected: bool = True,
) -> np.ndarray[Any, Any]:
    """x (C, T, H, W) -> y, in float64, without any of our functions."""
    values = x.double().numpy()
    size = values.shape[1:]
    sides = (patch_frames, patch, patch)
    offsets = list(itertools.product(*(range(-(s // 2), s // 2 + 1) for s in sides)))
    a = [max((s - 1) / 4, 1e-9) for s in sides]
    g = np.array(
        [math.exp(-sum((k / s) ** 2 / 2 for k, s in zip(o, a, strict=True))) for o in offsets]
    )
    g = np.ones(len(g)) if weights == "uniform" else g
    g /= g.sum()

    def patch_at(place: tuple[int, ...]) -> np.ndarray[Any, Any]:
        at = [[fold(p + k, n) for p, k, n in zip(place, o, size, strict=True)] for o in offsets]
        return np.stack([values[(slice(None), *index)] for index in at], 1)  # (C, offsets)

    patches: dict[tuple[int, ...], np.ndarray[Any, Any]] = {}
    reach = (frames // 2, window // 2, window // 2)
    y = np.zeros_like(values)
    for i in itertools.product(*(range(n) for n in size)):
        total, sums, others = 0.0, np.zeros(len(values)), [0.0]
        for o in itertools.product(*(range(-r, r + 1) for r in reach)):
            j = tuple(p + k for p, k in zip(i, o, strict=True))
            outside = [not 0 <= p < n for p, n in zip(j, size, strict=True)]
            if j == i or outside[0] or (border == "inside" and any(outside)):
                continue
            for place in (i, j):
                if place not in patches:
                    patches[place] = patch_at(place)
            d2 = (g * ((patches[i] - patches[j]) ** 2).mean(0)).sum()
            f = math.exp(-max(d2 - 2 * sigma**2 * corrected, 0) / h**2)
            others.append(f)
            total += f
            sums += f * values[(slice(None), *(fold(p, n) for p, n in zip(j, size, strict=True)))]
        own = {"own": 1.0, "largest": max(others), "none": 0.0}[centre]
        here = (slice(None), *i)
        y[here] = (sums + own * values[here]) / (total + own)
    return y


CASES: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((1, 1, 14, 17), {"sigma": 0.1, "h": 0.08, "patch": 7, "window": 11}),
    ((1, 1, 13, 9), {"sigma": 0.0, "h": 0.02, "patch": 3, "window": 5}),
    ((3, 1, 12, 10), {"sigma": 0.1, "h": 0.06, "patch": 5, "window": 7, "weights": "gaussian"}),
    ((5, 1, 9, 8), {"sigma": 0.1, "h": 0.3, "patch": 1, "window": 3, "corrected": False}),
    ((1, 1, 11, 12), {"sigma": 0.05, "h": 0.1, "patch": 5, "window": 31}),  # the whole image
    ((3, 1, 10, 9), {"sigma": 0.1, "h": 0.1, "patch": 3, "window": 9, "border": "reflect"}),
    ((1, 1, 6, 5), {"sigma": 0.1, "h": 0.1, "patch": 5, "window": 21, "border": "reflect"}),
    ((1, 1, 10, 9), {"sigma": 0.1, "h": 0.05, "patch": 3, "window": 7, "centre": "largest"}),
    ((1, 1, 10, 9), {"sigma": 0.1, "h": 0.05, "patch": 3, "window": 7, "centre": "none"}),
    ((3, 4, 8, 7), {"sigma": 0.1, "h": 0.08, "patch": 3, "window": 5, "frames": 3}),
    (
        (1, 5, 7, 8),
        {
            "sigma": 0.1,
            "h": 0.08,
            "patch": 3,
            "window": 3,
            "weights": "gaussian",
            "frames": 5,
            "patch_frames": 3,
            "centre": "largest",
        },
    ),
]


@pytest.mark.parametrize(("shape", "options"), CASES)
def test_equals_the_brute_force(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    """The kernel in float32 to 1e-6; itself and plain torch in float64 to the last digits."""
    x = noisy(*shape)
    want = torch.from_numpy(brute_force(x, **options))
    found = nl_means(x[None], **options)[0]
    assert found.dtype == torch.float32
    assert (found.double() - want).abs().max() <= 1e-6
    torch.testing.assert_close(nl_means(x[None].double(), **options)[0], want, rtol=0, atol=1e-13)
    with_gradient = nl_means(x[None].double().requires_grad_(), **options)[0].detach()
    torch.testing.assert_close(with_gradient, want, rtol=0, atol=1e-13)


@pytest.mark.parametrize("window", [9, 41])
@pytest.mark.parametrize("centre", ["own", "largest"])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 300, 20), (1, 2, 1, 37, 151), (2, 1, 1, 140, 70), (1, 1, 1, 9, 130)]
)
def test_slabs_strips_and_tiles_leave_no_seam(
    shape: tuple[int, ...], centre: str, window: int
) -> None:
    """Plain torch knows none of them."""
    x = noisy(*shape)
    space, reach = taps(3, False), min(window // 2, max(shape[3:]) - 1)
    padded = torch.nn.functional.pad(x.squeeze(2), (1, 1, 1, 1), mode="reflect").unsqueeze(2)
    arguments = (0, reach, (1.0,), space, 120.0, 2.0, 0, 1, centre == "largest")
    found = [s if s is None else s.double() for s in patch_sum_numba.sums(padded, *arguments)]
    want = patch_sum_torch.sums(padded.double(), *arguments)
    for ours, theirs in zip(_compared(*found), _compared(*want), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def _compared(D: Tensor, C: Tensor, M: Tensor | None) -> list[Tensor]:
    """D beside C, since its terms cancel, and C per neighbour of 1700 at most."""
    return [D / (1 + C), C / 1700, *([] if M is None else [M])]


def test_error_does_not_grow_with_contrast_beside_or_with_a_small_h() -> None:
    """Running sums would leave the rounding of what is bright in what is dark beside it."""
    x = noisy(1, 1, 40, 40) / 1000
    x[..., 20:] += 0.9
    want = torch.from_numpy(brute_force(x[0][None], 0.0, 1e-4, 3, 5))
    assert (nl_means(x, 0.0, 1e-4, patch=3, window=5)[0].double() - want[0]).abs().max() <= 1e-7


def test_a_large_window_is_exact_too() -> None:
    """Flat but for noise: thousands of weights near one are added."""
    generator = torch.Generator().manual_seed(0)
    x = 0.9 + 0.02 * torch.randn(1, 1, 90, 96, generator=generator)
    found = nl_means(x, 0.02, 0.05, patch=3, window="image")
    want = nl_means(x.double(), 0.02, 0.05, patch=3, window="image")
    assert (found.double() - want).abs().max() <= 1e-7


def test_threads_do_not_change_a_bit() -> None:
    x = noisy(1, 3, 150, 40)
    one = nl_means(x, 0.1, patch=3, window=9)
    torch.set_num_threads(3)  # the fixture of all tests puts it back
    assert torch.equal(nl_means(x, 0.1, patch=3, window=9), one)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("sigma", "h"), [(0.0, 0.1), (0.1, 0.06), (0.1, 0.5)])
def test_scikit_images_slow_mode(sigma: float, h: float, channels: int) -> None:
    x = noisy(channels, 30, 34, dtype=torch.float64)
    given, axis = (x[0].numpy(), None) if channels == 1 else (x.permute(1, 2, 0).numpy(), -1)
    want = denoise_nl_means(given, 7, 4, h, fast_mode=False, sigma=sigma, channel_axis=axis)
    want = want.reshape(30, 34, channels)
    found = nl_means(x, sigma, h, patch=7, window=9, weights="scikit-image")
    np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), want, rtol=0, atol=1e-5)
    # the definition alone is as far from its program as the program's exp is from exp
    defined = nl_means(x, sigma, h, patch=7, window=9, weights="gaussian")
    assert 1e-5 < np.abs(defined.permute(1, 2, 0).numpy() - want).max() < 0.02


def test_h_and_sigma_are_in_units_of_x() -> None:
    x = noisy(3, 20, 24)
    for dtype, white in ((torch.uint8, 255), (torch.uint16, 65535)):
        levels = (x * white).round()
        found = nl_means(levels.to(dtype), 0.1 * white, 0.08 * white, patch=3, window=7)
        want = nl_means(levels.double() / white, 0.1, 0.08, patch=3, window=7)
        assert found.dtype == dtype
        assert (found.double() - white * want).abs().max() <= 0.5 + white * 1e-6
    half = nl_means(x.half(), 0.1, patch=3, window=7)
    assert half.dtype == torch.float16
    want = nl_means(x.half().double(), 0.1, patch=3, window=7)
    assert (half.double() - want).abs().max() <= 2**-11
    assert nl_means(x.double(), 0.1).dtype == torch.float64


def test_shapes() -> None:
    x = noisy(2, 3, 4, 10, 12)
    frame = x[:, :, 1]
    options: dict[str, Any] = {"patch": 3, "window": 5}
    batch = nl_means(frame, 0.1, **options)
    assert torch.equal(nl_means(x, 0.1, **options)[:, :, 1], batch)
    assert torch.equal(nl_means(frame[1], 0.1, **options), batch[1])
    grey = nl_means(frame[0, :1], 0.1, **options)
    assert torch.equal(nl_means(frame[0, 0], 0.1, **options), grey[0])
    strided = nl_means(frame.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2), 0.1, **options)
    assert torch.equal(strided, batch)


def test_more_frames_take_more_noise_away() -> None:
    """Of a still: five times as many neighbours that are alike but for their noise."""
    clean = torch.linspace(0, 1, 40).expand(1, 1, 8, 40, 40)
    noise = 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    errors = [
        (nl_means(clean + noise, 0.1, window=5, frames=n) - clean).square().mean() for n in (1, 5)
    ]
    assert errors[1] < errors[0] / 2


RULED = [  # sigma of 255, channels, rule, weights: patch, window, h / sigma
    (20, 1, "scikit-image", "uniform", 7, 21, 0.8),
    (20, 3, "scikit-image", "gaussian", 7, 21, 0.6),
    (15, 1, "ipol", "uniform", 3, 21, 0.40),
    (16, 1, "ipol", "uniform", 5, 21, 0.40),
    (45, 1, "ipol", "uniform", 7, 35, 0.35),
    (75, 1, "ipol", "uniform", 9, 35, 0.35),
    (76, 1, "ipol", "uniform", 11, 35, 0.30),
    (25, 3, "ipol", "uniform", 3, 21, 0.55),
    (26, 3, "ipol", "uniform", 5, 35, 0.40),
    (56, 3, "ipol", "uniform", 7, 35, 0.35),
]


@pytest.mark.parametrize(("sigma", "channels", "rule", "weights", "patch", "window", "h"), RULED)
def test_rules(
    sigma: int, channels: int, rule: Any, weights: Any, patch: int, window: int, h: float
) -> None:
    x = torch.zeros(1, channels, 1, 40, 40)
    options = Options(rule=rule, weights=weights)
    for dtype, white in ((torch.uint8, 255), (torch.float32, 1), (torch.uint16, 65535)):
        plan = Plan.of(x, dtype, sigma * white / 255, None, options)
        assert (plan.patch, plan.window) == (patch, window // 2)
        assert float(plan.h) == pytest.approx(h * sigma * white / 255)


def test_sigma_is_estimated() -> None:
    clean = torch.linspace(0, 1, 128).expand(3, 128, 128)
    x = clean + 0.1 * torch.randn(3, 128, 128, generator=torch.Generator().manual_seed(0))
    plan = Plan.of(x[None, :, None], x.dtype, "auto", None, Options())
    assert plan.sigma == pytest.approx(0.1, rel=0.05)
    assert torch.equal(nl_means(x), nl_means(x, plan.sigma))


def test_gradients() -> None:
    x = noisy(1, 2, 1, 4, 3, dtype=torch.float64).requires_grad_()
    h = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def f(x: Tensor, h: Tensor) -> Tensor:
        return nl_means(x, 0.02, h, patch=3, window=3)

    assert torch.autograd.gradcheck(f, (x, h))
    some = x.detach()[:, :1, :, :3].requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: f(x, h.detach()), (some,))


def test_a_layer_learns_its_h() -> None:
    clean = torch.zeros(1, 1, 24, 24)
    clean[..., 12:] = 1
    x = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    layer = NLMeans(0.1, h=0.02, options=Options(patch=3, window=5))
    torch.testing.assert_close(layer(x).detach(), nl_means(x, 0.1, 0.02, patch=3, window=5))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = (layer(x) - clean).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert float(layer.h.detach()) > 0.05
    assert "sigma=0.1" in repr(layer)


def test_a_gradient_needs_no_memory_for_all_offsets() -> None:
    """What is kept for the backward pass does not grow with the window."""
    kept = []
    for window in (5, 15):
        x = noisy(1, 1, 30, 30).requires_grad_()
        held = 0

        def pack(t: Tensor) -> Tensor:
            nonlocal held
            held += t.numel()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            nl_means(x, 0.1, 0.1, patch=3, window=window)
        kept.append(held)
    assert kept[1] < 4 * kept[0]  # rows of offsets, where offsets are nine times as many


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weights": "gaussian", "centre": "largest"},
        {"border": "reflect", "centre": "none"},
        {"frames": 3, "patch_frames": 3},
    ],
)
def test_weights_of_a_pixel_make_its_value(options: dict[str, Any]) -> None:
    x = noisy(1, 2, 4, 11, 13, dtype=torch.float64)
    plan = Plan.of(x, x.dtype, 0.1, 0.09, Options(patch=3, window=7, **options))
    y = plan.denoise(x)
    for pixel in (Pixel(0, 0, 0), Pixel(2, 5, 6), Pixel(3, 10, 12)):
        weights = weights_of(x, pixel, plan)
        assert weights.sum() == pytest.approx(1)
        value = (weights * x[0]).sum((1, 2, 3))
        torch.testing.assert_close(value, y[0, :, pixel.frame, pixel.y, pixel.x])


def test_look_tells_how_many_pixels_matter() -> None:
    x = torch.zeros(1, 1, 1, 20, 20)
    plan = Plan.of(x, x.dtype, 0.1, 0.1, Options(patch=3, window=5))
    look = look_at(x, Pixel(0, 10, 10), plan)
    assert look.seen == 25
    assert look.relative_entropy == pytest.approx(1)
    assert {key.cell for key in look.keys} <= {
        (0, y, x) for y in range(8, 13) for x in range(8, 13)
    }
    assert look_at(x, Pixel(0, 0, 0), plan).seen == 9
    with pytest.raises(ValueError, match="no pixel x 20, y 0 in 20 x 20"):
        look_at(x, Pixel(0, 0, 20), plan)


BAD: list[tuple[Any, dict[str, Any], str]] = [
    (torch.zeros(5, 9), {}, "5 rows are fewer than a patch has, 7"),
    (torch.zeros(9, 1), {"patch": 3}, "1 columns are fewer than a patch has, 3"),
    (torch.zeros(1, 1), {}, "1 rows are fewer"),
    (torch.zeros(1, 1, 2, 9, 9), {"patch_frames": 3}, "2 frames are fewer"),
    (torch.zeros(0, 9), {}, "no pixel"),
    (torch.zeros(9), {}, r"it came as \(9,\)"),
    (torch.full((9, 9), torch.nan), {}, "NaN or infinity"),
    (torch.full((9, 9), torch.inf), {}, "NaN or infinity"),
    (torch.zeros(9, 9), {"h": -1.0}, "h is above 0; it came as -1"),
    (torch.zeros(9, 9), {"h": 0.0}, "h is above 0"),
    (torch.zeros(9, 9), {"h": math.nan}, "h is above 0"),
    (torch.zeros(9, 9), {"sigma": -0.1}, "sigma is 0 or above"),
    (torch.zeros(9, 9), {"sigma": 0.0}, "no h follows"),
    (torch.zeros(9, 9), {"patch": 4}, "patch is an odd number"),
    (torch.zeros(9, 9), {"window": 0}, "window is an odd number"),
    (torch.zeros(9, 9), {"frames": 3}, "frames are of a video"),
    (torch.zeros(9, 9), {"weights": "gauss"}, "weights is one of uniform, gaussian"),
    (torch.zeros(9, 9), {"weights": "scikit-image", "centre": "none"}, "is for images"),
    (torch.zeros(5, 5), {"sigma": "auto", "patch": 3}, "no noise can be estimated"),
    (torch.zeros(9, 9), {"sigma": "auto"}, "no noise was found"),
]


@pytest.mark.parametrize(("x", "options", "words"), BAD)
def test_bad_input(x: Tensor, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        nl_means(x, **{"sigma": 0.1, **options})


def test_one_pixel_and_flat_images_stay() -> None:
    assert torch.equal(nl_means(torch.tensor([[0.3]]), 0.1, patch=1), torch.tensor([[0.3]]))
    flat = torch.full((9, 9), 0.7)
    assert torch.equal(nl_means(flat, 0.1), flat)
    lone = torch.zeros(9, 9)
    lone[4, 4] = 1e4
    # nothing is like it: without its own weight, it stays as it is
    assert nl_means(lone, 0.1, 0.1, patch=1, centre="none")[4, 4] == 1e4


def test_without_numba_plain_torch_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    x = noisy(1, 1, 20, 20)
    want = nl_means(x, 0.1)
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "nonlocalnet.kernels.patch_sum_numba", raising=False)
    monkeypatch.delitem(sys.modules, "nonlocalnet.kernels.numba_form", raising=False)
    patch_sum.patch_sum_form.cache_clear()
    try:
        assert patch_sum.patch_sum_form("cpu") is patch_sum_torch
        torch.testing.assert_close(nl_means(x, 0.1), want)
    finally:
        patch_sum.patch_sum_form.cache_clear()


def test_importing_it_imports_neither_a_compiler_nor_scikit_image() -> None:
    code = (
        "import sys, nonlocalnet.denoise;"
        "sys.exit(any(m in sys.modules for m in ('numba', 'triton', 'skimage')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
