"""A slab of a picture for `patch_sum_numba`: from squared differences to D, C and M, compiled."""

from __future__ import annotations

import numpy as np

from .numba_form import compiled

LANES = 8
ROWS, COLUMNS = 16, 64  # of strips, whose sums are formed together
SIDE = 2  # columns beside the window: three offsets at a time reach so much further
FLUSH = 1024  # offsets after which sums in float32 go to those in float64

# Taylor's polynomial of 2^x bent to be as close as it can to it over -1/2 .. 1/2: 7.5e-8
C0, C1, C2 = (
    np.float32(1.0000000716546542),
    np.float32(0.6931469670638639),
    np.float32(0.24022119723934),
)
C3, C4, C5 = (
    np.float32(0.05550713274961187),
    np.float32(0.009675541330676662),
    np.float32(0.001327647151950915),
)
ROUND = np.float32(1.5 * 2**23)  # added to a small number, it leaves no room for a fraction
LEAST = 100.0  # a weight is 2^-100 at least: nothing beside another, and never subnormal

lines = compiled("nnan", "nsz")  # of numbers side by side


@lines
def _power(z):  # type: ignore[no-untyped-def]
    """2^-z for z from 0 to LEAST, in float32, by moving the exponent of 2^(what is left)."""
    rounded = z + ROUND
    x = (rounded - ROUND) - z
    y = ((((C5 * x + C4) * x + C3) * x + C2) * x + C1) * x + C0
    steps = np.int32(np.float32(rounded).view(np.int32) << np.int32(23))
    return np.int32(np.float32(y).view(np.int32) - steps).view(np.float32)


@lines
def _weigh(w, n, scale, shift):  # type: ignore[no-untyped-def]
    for c in range(n):
        w[c] = _power(min(max(w[c] * scale - shift, np.float32(0)), np.float32(LEAST)))


@lines
def _weigh_double(w, n, scale, shift):  # type: ignore[no-untyped-def]
    for c in range(n):
        w[c] = 2.0 ** -min(max(w[c] * scale - shift, 0.0), LEAST)


@lines
def _differ(e, a, b, n, g, more):  # type: ignore[no-untyped-def]
    if more:
        for c in range(n):
            d = a[c] - b[c]
            e[c] += g * d * d
    else:
        for c in range(n):
            d = a[c] - b[c]
            e[c] = g * d * d


@lines
def _down(e, i, u, v, n, taps):  # type: ignore[no-untyped-def]
    """Rows i and i + 1 of the sums of patches down, four taps at a time."""
    g0, g1, g2, g3 = taps[0], taps[1], taps[2], taps[3]
    for c in range(n):
        x1, x2, x3 = e[i + 1, c], e[i + 2, c], e[i + 3, c]
        u[c] = (g0 * e[i, c] + g1 * x1) + (g2 * x2 + g3 * x3)
        v[c] = (g0 * x1 + g1 * x2) + (g2 * x3 + g3 * e[i + 4, c])
    for k in range(4, len(taps), 4):
        g0, g1, g2, g3 = taps[k], taps[k + 1], taps[k + 2], taps[k + 3]
        j = i + k
        for c in range(n):
            x1, x2, x3 = e[j + 1, c], e[j + 2, c], e[j + 3, c]
            u[c] += (g0 * e[j, c] + g1 * x1) + (g2 * x2 + g3 * x3)
            v[c] += (g0 * x1 + g1 * x2) + (g2 * x3 + g3 * e[j + 4, c])


@lines
def _across(u, w, n, taps):  # type: ignore[no-untyped-def]
    g0, g1, g2, g3 = taps[0], taps[1], taps[2], taps[3]
    for c in range(n):
        w[c] = (g0 * u[c] + g1 * u[c + 8]) + (g2 * u[c + 16] + g3 * u[c + 24])
    for k in range(4, len(taps), 4):
        g0, g1, g2, g3 = taps[k], taps[k + 1], taps[k + 2], taps[k + 3]
        on = u[k * LANES :]
        for c in range(n):
            w[c] += (g0 * on[c] + g1 * on[c + 8]) + (g2 * on[c + 16] + g3 * on[c + 24])


@lines
def _gain(w, i, here, there, d, total, n, count):  # type: ignore[no-untyped-def]
    """Three offsets' parts of D, and of C if they `count`, for pixels `here`.

    The rows of w stand two columns further on.
    """
    if count:
        for c in range(n):
            x, a, b, e = here[c], w[0, i, c + 16], w[1, i, c + 16], w[2, i, c + 16]
            d[c] += (a * (there[c] - x) + b * (there[c + 8] - x)) + e * (there[c + 16] - x)
            total[c] += (a + b) + e
    else:
        for c in range(n):
            x, a, b, e = here[c], w[0, i, c + 16], w[1, i, c + 16], w[2, i, c + 16]
            d[c] += (a * (there[c] - x) + b * (there[c + 8] - x)) + e * (there[c + 16] - x)


@lines
def _lose(w, i, here, there, d, total, n, count):  # type: ignore[no-untyped-def]
    """The same for pixels `there`: each is met by three pixels, one column apart."""
    if count:
        for c in range(n):
            x, a, b, e = there[c], w[0, i, c + 16], w[1, i, c + 8], w[2, i, c]
            d[c] += (a * (here[c + 16] - x) + b * (here[c + 8] - x)) + e * (here[c] - x)
            total[c] += (a + b) + e
    else:
        for c in range(n):
            x, a, b, e = there[c], w[0, i, c + 16], w[1, i, c + 8], w[2, i, c]
            d[c] += (a * (here[c + 16] - x) + b * (here[c + 8] - x)) + e * (here[c] - x)


@lines
def _most(w, i, m, n):  # type: ignore[no-untyped-def]
    for k in range(n):
        m[k] = max(m[k], max(max(w[0, i, k + 16], w[1, i, k + 16]), w[2, i, k + 16]))


@lines
def _most_there(w, i, m, n):  # type: ignore[no-untyped-def]
    for k in range(n):
        m[k] = max(m[k], max(max(w[0, i, k + 16], w[1, i, k + 8]), w[2, i, k]))


@lines
def _move(total, part, n, most):  # type: ignore[no-untyped-def]
    """Sums to those in float64."""
    if most:
        for c in range(n):
            total[c] = max(total[c], part[c])
            part[c] = 0
    else:
        for c in range(n):
            total[c] += part[c]
            part[c] = 0


@lines
def _clear(w, strip, first, before, after):  # type: ignore[no-untyped-def]
    """No weight where a strip, whose rows stand at `first` and on, leaves the slab or picture."""
    for lane in range(LANES):
        y = lane * strip + first
        if y < before or y >= after:
            for c in range(lane, w.shape[0], LANES):
                w[c] = 0


@lines
def add_slab(  # type: ignore[no-untyped-def]
    here,
    there,
    gained,
    lost,
    taps,
    planes,
    scale,
    shift,
    patch,
    channels,
    middle,
    same,
    largest,
    top,
    rows,
    strip,
    h,
    w,
    reach,
):
    """Add to the sums `gained` by the pixels of one frame and `lost` by those of the other.

    here, there: (pt C, rows, columns LANES). gained, lost: (C + 1, or 2 with M, rows, columns
    LANES). The first row of both stands `reach` rows above the slab, and with it its patch.
    """
    half, kinds = patch // 2, gained.shape[0]
    most, pad = min(COLUMNS, (w + 3) // 4 * 4), taps.shape[0]
    e = np.zeros((ROWS + pad + 1, (most + pad) * LANES), here.dtype)
    u = np.zeros((2, (most + pad) * LANES), here.dtype)
    f = np.zeros((3, ROWS, (most + 2 * SIDE) * LANES), here.dtype)
    near = np.zeros((kinds, ROWS, most * LANES), here.dtype)
    far = np.zeros((kinds, ROWS + 2 * reach, (most + 2 * reach + SIDE) * LANES), here.dtype)
    edge = reach + SIDE
    for y in range(0, strip, ROWS):
        n = min(ROWS, strip - y)
        for left in range(0, w, COLUMNS):
            wide = (min(COLUMNS, w - left) + 3) // 4 * 4
            size, taken = wide * LANES, 0
            for dy in range(0 if same else -reach, reach + 1):
                for d in range(1 if same and dy == 0 else -reach, reach + 1, 3):
                    for q in range(3):
                        dx = d + q
                        if dx > reach:
                            f[q] = 0
                            continue
                        for i in range(n + patch - 1):
                            a, b = reach + y + i, (edge + left) * LANES
                            for k in range(planes.shape[0]):
                                _differ(
                                    e[i],
                                    here[k, a, b:],
                                    there[k, a + dy, b + dx * LANES :],
                                    size + pad * LANES,
                                    planes[k],
                                    k > 0,
                                )
                        low, high = -dx - left, w - max(dx, 0) - left
                        for i in range(n):
                            if i % 2 == 0:
                                _down(e, i, u[0], u[1], size + pad * LANES, taps)
                            line = f[q, i, SIDE * LANES :]
                            _across(u[i % 2], line, size, taps)
                            if here.itemsize == 8:
                                _weigh_double(line, size, scale, shift)
                            else:
                                _weigh(line, size, scale, shift)
                            line[: min(max(low, 0), wide) * LANES] = 0
                            line[min(max(high, 0), wide) * LANES :] = 0
                            before, after = -top - dy, min(rows, h - top - dy)
                            if y + i < before or (LANES - 1) * strip + y + i >= after:
                                _clear(line, strip, y + i, before, after)
                    b = edge + left + half
                    for i in range(n):
                        a, j = reach + y + i + half, i + dy + reach
                        c = (reach + d) * LANES
                        for k in range(channels):
                            m = middle + k
                            _gain(
                                f,
                                i,
                                here[m, a, b * LANES :],
                                there[m, a + dy, (b + d) * LANES :],
                                near[k, i],
                                near[channels, i],
                                size,
                                k == 0,
                            )
                            _lose(
                                f,
                                i,
                                here[m, a, (b - SIDE) * LANES :],
                                there[m, a + dy, (b + d) * LANES :],
                                far[k, j, c:],
                                far[channels, j, c:],
                                size + SIDE * LANES,
                                k == 0,
                            )
                        if largest:
                            _most(f, i, near[channels + 1, i], size)
                            _most_there(f, i, far[channels + 1, j, c:], size + SIDE * LANES)
                    taken += 3
                    if taken > FLUSH or (dy == reach and d + 3 > reach):
                        taken = 0
                        for k in range(kinds):
                            for i in range(n):
                                total = gained[k, reach + y + i, (edge + left) * LANES :]
                                _move(total, near[k, i], size, k > channels)
                            for i in range(n + 2 * reach):
                                total = lost[k, y + i, (left + SIDE) * LANES :]
                                _move(
                                    total,
                                    far[k, i],
                                    size + (2 * reach + SIDE) * LANES,
                                    k > channels,
                                )
