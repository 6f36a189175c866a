"""NL-means (Buades, Coll, Morel, CVPR 2005): the operation of `ops` with patches for embeddings.

    y_i = 1/C_i sum_j f(x_i, x_j) x_j        f = exp(-max(d^2_ij - 2 sigma^2, 0) / h^2)

with C_i the sum of f over j, and d^2_ij the mean of (x_i - x_j)^2 over the patches around i and j
and over the channels; of patches of pure noise it is 2 sigma^2. Nothing is trained. j runs over a
window around i, or the whole image, and of a video over the frames around it.

The function, the options and the layer; sums and gradients are those of `kernels.patch_sum`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from .kernels.patch_sum import Search, Sums, patch_sums
from .kernels.scikit_slow import fast_exp, scikit_slow_sums

Sigma = float | Literal["auto"]
Weights = Literal["uniform", "gaussian", "scikit-image"]
RuleName = Literal["scikit-image", "ipol"]
SUMMED = Callable[..., Sums]


@dataclass(frozen=True)
class Options:
    """How NL-means is done; None is what the rule says."""

    patch: int | None = None
    """Pixels on each side of a patch, an odd number; None is 7, or the rule's."""
    window: int | Literal["image"] | None = None
    """Pixels on each side of the window that is searched, or the whole image; None is 21."""
    weights: Weights = "uniform"
    """Of a patch's pixels: uniform (OpenCV, scikit-image's fast mode, IPOL 2011); gaussian, of
    deviation (patch - 1) / 4 (scikit-image's slow mode, as it is defined); scikit-image, the same
    with the approximate exp and the cut-offs of its program, to compare with it."""
    centre: Literal["own", "largest", "none"] = "own"
    """Weight of the pixel itself: own, f(0) = 1 (OpenCV, scikit-image); largest, that of its
    likest neighbour (IPOL 2011); none, its neighbours alone."""
    border: Literal["inside", "reflect"] = "inside"
    """Where a window ends: inside the image (scikit-image), or in its mirror image (OpenCV).
    Patches see the mirror image in both."""
    frames: int = 1
    """Frames of a video that a window spans, an odd number; 1 is frame by frame."""
    patch_frames: int = 1
    """Frames of a video that a patch spans, an odd number."""
    corrected: bool = True
    """Take 2 sigma^2 off the distances (scikit-image with its sigma, IPOL 2011); if not, d^2
    stays as it is (CVPR 2005, OpenCV)."""
    rule: RuleName = "scikit-image"
    """What h, patch and window follow from sigma by: a row of RULES."""

    def __post_init__(self) -> None:
        for name in ("patch", "window", "frames", "patch_frames"):
            value = getattr(self, name)
            if not (
                value in (None, "image") or (isinstance(value, int) and value % 2 == 1 <= value)
            ):
                raise ValueError(f"{name} is an odd number such as 7; it came as {value!r}")
        for field in dataclasses.fields(self):
            known, value = CHOICES.get(field.name), getattr(self, field.name)
            if known and value not in known:
                raise ValueError(f"{field.name} is one of {', '.join(known)}; it came as {value!r}")
        simple = self.frames == self.patch_frames == 1 and self.border == "inside"
        if self.weights == "scikit-image" and not (simple and self.centre == "own"):
            raise ValueError("weights='scikit-image' is for images, border='inside', centre='own'")


CHOICES: dict[str, tuple[str, ...]] = {
    "weights": ("uniform", "gaussian", "scikit-image"),
    "centre": ("own", "largest", "none"),
    "border": ("inside", "reflect"),
    "rule": ("scikit-image", "ipol"),
}


class Advice(NamedTuple):
    """What a rule says: sizes in pixels, h as a multiple of sigma."""

    patch: int
    window: int
    h: float


def scikit_advice(levels: float, channels: int, weights: Weights) -> Advice:
    """The documentation of scikit-image's denoise_nl_means: a start for corrected distances."""
    return Advice(7, 21, 0.8 if weights == "uniform" else 0.6)


# sigma in levels of 255 up to which a row holds; Buades, Coll, Morel, Non-Local Means Denoising,
# IPOL 1 (2011), as the program published with it has them
GREY = ((15, 3, 21, 0.40), (30, 5, 21, 0.40), (45, 7, 35, 0.35), (75, 9, 35, 0.35))
GREY_ABOVE = (11, 35, 0.30)
COLOUR = ((25, 3, 21, 0.55), (55, 5, 35, 0.40))
COLOUR_ABOVE = (7, 35, 0.35)


def ipol_advice(levels: float, channels: int, weights: Weights) -> Advice:
    """IPOL 2011's tables for grey and colour images, for sigma from 0 to 100 of 255 levels."""
    rows, above = (GREY, GREY_ABOVE) if channels == 1 else (COLOUR, COLOUR_ABOVE)
    return Advice(*next((rest for most, *rest in rows if levels <= most), above))


RULES: dict[str, Callable[[float, int, Weights], Advice]] = {
    "scikit-image": scikit_advice,
    "ipol": ipol_advice,
}


def nl_means(
    x: Tensor,
    sigma: Sigma = "auto",
    h: float | Tensor | None = None,
    *,
    patch: int | None = None,
    window: int | Literal["image"] | None = None,
    weights: Weights = "uniform",
    centre: Literal["own", "largest", "none"] = "own",
    border: Literal["inside", "reflect"] = "inside",
    frames: int = 1,
    patch_frames: int = 1,
    corrected: bool = True,
    rule: RuleName = "scikit-image",
) -> Tensor:
    """x without its noise, in x's shape and type.

    x: (H, W), (C, H, W), (N, C, H, W), or a video (N, C, T, H, W), any number of channels; of any
        type: 8- and 16-bit integers are exact in float32, in which it is computed (float64 and
        wider integers in float64), and results are rounded to theirs.
    sigma: standard deviation of the noise, in units of x; "auto" estimates one for all of x.
    h: how unlike patches may be, in units of x; None is what the rule makes of sigma. A tensor of
        one number may want a gradient, as x may.
    Others: as `Options` has them.

    Exact: no table of weights, no cut-off. Memory grows with x, not with the window.

    Raises `ValueError` for what makes no sense, such as an x that is smaller than a patch, is not
    finite or has no pixel, h that is not above zero, or even sizes.
    """
    options = Options(patch, window, weights, centre, border, frames, patch_frames, corrected, rule)
    return _nl_means(x, sigma, h, options)


class NLMeans(nn.Module):
    """`nl_means` as a layer, with h to be learnt; (N, C, H, W) or (N, C, T, H, W) in float.

    sigma and h as there, but numbers; only h^2 counts, and so its sign does not.
    """

    def __init__(
        self, sigma: float, h: float | None = None, options: Options | None = None
    ) -> None:
        super().__init__()
        self.sigma, self.options = sigma, options or Options()
        advice = RULES[self.options.rule](255 * sigma, 3, self.options.weights)
        start = h if h is not None else advice.h * sigma
        if not (start > 0 and math.isfinite(start)):
            raise ValueError(f"h is above 0; it came as {start:g}")
        self.h = nn.Parameter(torch.tensor(float(start)))

    def forward(self, x: Tensor) -> Tensor:
        return _nl_means(x, self.sigma, self.h, self.options)

    def extra_repr(self) -> str:
        return f"sigma={self.sigma:g}, {self.options}"


def _nl_means(x: Tensor, sigma: Sigma, h: float | Tensor | None, options: Options) -> Tensor:
    if x.dim() not in (2, 3, 4, 5):
        raise ValueError(
            f"x is (H, W), (C, H, W), (N, C, H, W) or (N, C, T, H, W); it came as {tuple(x.shape)}"
        )
    if options.frames * options.patch_frames > 1 and x.dim() < 5:
        raise ValueError(f"frames are of a video, (N, C, T, H, W); x came as {tuple(x.shape)}")
    whole = as_video(x)
    check_numbers(whole)
    plan = Plan.of(whole, x.dtype, sigma, h, options)
    y = plan.denoise(whole)
    return as_type(y, x.dtype).view(x.shape)


def as_video(x: Tensor) -> Tensor:
    """Any x as (N, C, T, H, W) in the type in which it is computed."""
    if x.dim() < 5:
        x = x[(None,) * (4 - x.dim())].unsqueeze(2)
    double = x.dtype in (torch.float64, torch.int32, torch.int64, torch.uint32, torch.uint64)
    return x.to(torch.float64 if double else torch.float32)


def as_type(y: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers rounded to those that a type has."""
    if dtype.is_floating_point:
        return y.to(dtype)
    limits = torch.iinfo(dtype)
    return y.round().clamp(limits.min, limits.max).to(dtype)


def check_numbers(x: Tensor) -> None:
    """Raises `ValueError` where a number is NaN or infinite, or there is none."""
    if not x.numel():
        raise ValueError(f"x has no pixel; its shape is {tuple(x.shape)}")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("x holds NaN or infinity, which no patch can be compared with")


def scale_of(dtype: torch.dtype) -> float:
    """White: the largest integer of a type, 1 for floats."""
    return 1.0 if dtype.is_floating_point else float(torch.iinfo(dtype).max)


@dataclass(frozen=True)
class Plan:
    """`Options` for one sigma and one kind of image, checked: what is done to each frame.

    h, patch and window are settled; `search` is theirs. window: pixels to each side; None is all.
    """

    sigma: float
    h: float | Tensor
    patch: int
    window: int | None
    options: Options

    @classmethod
    def of(
        cls, x: Tensor, dtype: torch.dtype, sigma: Sigma, h: float | Tensor | None, options: Options
    ) -> Plan:
        """For x (N, C, T, H, W); dtype: x's own, which says what white is.

        Raises `ValueError`.
        """
        if sigma == "auto":
            from .noise import estimate_sigma  # needs scikit-image

            sigma = estimate_sigma(x.detach())
            if sigma == 0:
                raise ValueError("no noise was found; give sigma")
        if not (sigma >= 0 and math.isfinite(sigma)):
            raise ValueError(f"sigma is 0 or above; it came as {sigma:g}")
        advice = RULES[options.rule](255 * sigma / scale_of(dtype), x.shape[1], options.weights)
        if h is None:
            h = advice.h * sigma
            if h == 0:
                raise ValueError("sigma is 0, from which no h follows; give h")
        if not isinstance(h, Tensor) and not (h > 0 and math.isfinite(h)):
            raise ValueError(f"h is above 0; it came as {h:g}")
        patch = options.patch or advice.patch
        window = options.window or advice.window
        for size, least, of in (
            (x.shape[3], patch, "rows"),
            (x.shape[4], patch, "columns"),
            (x.shape[2], options.patch_frames, "frames"),
        ):
            if size < least:
                raise ValueError(
                    f"{size} {of} are fewer than a patch has, {least}; give a smaller patch"
                )
        return cls(sigma, h, patch, None if window == "image" else window // 2, options)

    @property
    def around(self) -> int:
        """Frames before and after one that it depends on."""
        return self.options.frames // 2 + self.options.patch_frames // 2

    def words(self) -> str:
        """sigma and h."""
        return f"sigma {self.sigma:.3g}, h {float(self.h):.3g}"

    def denoise(self, x: Tensor, first: int = 0, last: int | None = None) -> Tensor:
        """Frames `first` to `last` of x (N, C, T, H, W), whose other frames are seen."""
        last = x.shape[2] if last is None else last
        reach = self.reach(x)
        mirror = reach if self.options.border == "reflect" else 0
        largest = self.options.centre == "largest"
        padded = mirrored(x, self.options.patch_frames // 2, self.patch // 2 + mirror)
        found = self._sums()(padded, self.search(reach, x.shape[1]), first, last, largest)
        D, C, M = (None if s is None else s[..., *self._inner(x, mirror)] for s in found)
        assert D is not None
        assert C is not None
        total = C + (self.own() if M is None else M)
        # neighbours that are all unlike it, to the last bit of a weight, leave a pixel as it is
        rise = D / total.where(total > NOTHING, 1.0)
        return (x[:, :, first:last] + rise.where(total > NOTHING, 0.0)).to(x.dtype)

    def _inner(self, x: Tensor, mirror: int) -> tuple[slice, slice]:
        h, w = x.shape[3:]
        return slice(mirror, mirror + h), slice(mirror, mirror + w)

    def reach(self, x: Tensor) -> int:
        """Pixels from one to the last that is searched, on each side."""
        most = max(x.shape[3:]) - 1
        if self.window is None:
            return most
        return min(self.window, most) if self.options.border == "inside" else self.window

    def search(self, reach: int, channels: int) -> Search:
        """What the kernels are told."""
        uniform = self.options.weights == "uniform"
        space, times = (taps(n, uniform) for n in (self.patch, self.options.patch_frames))
        less = 2 * self.sigma**2 if self.options.corrected else 0.0
        h2 = self.h**2
        # the kernels add channels up, where the equation has their mean
        return Search(self.options.frames // 2, reach, times, space, 1 / h2 / channels, less / h2)

    def _sums(self) -> SUMMED:
        if self.options.weights == "scikit-image":
            return scikit_slow_sums
        return patch_sums

    def own(self) -> float:
        """Weight of the pixel itself, where it does not follow from its neighbours'."""
        if self.options.centre == "none":
            return 0.0
        if self.options.weights == "scikit-image":
            return float(fast_exp(torch.zeros(1, dtype=torch.float64)))
        return 1.0


NOTHING = 1e-24  # less than the least weight of the kernels, 2^-100, from a million neighbours


def taps(size: int, uniform: bool) -> tuple[float, ...]:
    """Weights along one side of a patch, of sum one."""
    if uniform or size == 1:
        return (1 / size,) * size
    a = (size - 1) / 4
    g = [math.exp(-((k - size // 2) ** 2) / (2 * a * a)) for k in range(size)]
    return tuple(value / sum(g) for value in g)


def mirrored(x: Tensor, frames: int, pixels: int) -> Tensor:
    """x (N, C, T, H, W) with its mirror image around it, whose edge is not repeated."""
    for axis, more in ((2, frames), (3, pixels), (4, pixels)):
        if more:
            x = x.index_select(axis, _mirror(x.shape[axis], more).to(x.device))
    return x


def _mirror(size: int, more: int) -> Tensor:
    """Indices -more .. size + more - 1 folded back into 0 .. size - 1, as often as need be."""
    period = max(1, 2 * (size - 1))
    folded = torch.arange(-more, size + more) % period
    return torch.minimum(folded, period - folded).clamp(max=size - 1)
