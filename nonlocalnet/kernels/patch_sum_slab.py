"""A slab of a picture for `patch_sum_numba`: from squared differences to D, C and M, compiled.

Arrays are flat here, and a line of one is where it begins: slices would be counted, at a price.
"""

from __future__ import annotations

import numpy as np

from .numba_form import compiled

LANES, FOUR = 8, 4
ROWS, COLUMNS = 16, 64  # of strips, whose sums are formed together
BOX = 5  # sides of patches from which on plain sums are quicker than weighed ones
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
U = np.uint64  # of places: what cannot be negative is not looked at from the end


@lines
def _power(z):  # type: ignore[no-untyped-def]
    """2^-z for z from 0 to LEAST, in float32, by moving the exponent of 2^(what is left)."""
    rounded = z + ROUND
    x = (rounded - ROUND) - z
    x2 = x * x  # in pairs, which wait for each other less
    y = (C0 + C1 * x) + x2 * ((C2 + C3 * x) + x2 * (C4 + C5 * x))
    steps = np.int32(np.float32(rounded).view(np.int32) << np.int32(23))
    return np.int32(np.float32(y).view(np.int32) - steps).view(np.float32)


@lines
def _weigh(w, j, n, scale, shift):  # type: ignore[no-untyped-def]
    j = U(j)
    for c in range(U(n)):
        w[j + c] = _power(min(max(w[j + c] * scale - shift, np.float32(0)), np.float32(LEAST)))


@lines
def _weigh_double(w, j, n, scale, shift):  # type: ignore[no-untyped-def]
    j = U(j)
    for c in range(U(n)):
        w[j + c] = 2.0 ** -min(max(w[j + c] * scale - shift, 0.0), LEAST)


@lines
def _differ(e, i, a, j, b, k, n, g, more):  # type: ignore[no-untyped-def]
    i, j, k = U(i), U(j), U(k)
    for c in range(U(n)):
        d = a[j + c] - b[k + c]
        e[i + c] = g * d * d + (e[i + c] if more else 0)


@lines
def _add_four(u, i, step, w, j, n, g, k):  # type: ignore[no-untyped-def]
    """Four of the lines of a weighed sum, a `step` apart; w is begun anew where k is 0."""
    a, b, d, e, j = U(i), U(i + step), U(i + 2 * step), U(i + 3 * step), U(j)
    g0, g1, g2, g3 = g[k], g[k + 1], g[k + 2], g[k + 3]
    for c in range(U(n)):
        x = (g0 * u[a + c] + g1 * u[b + c]) + (g2 * u[d + c] + g3 * u[e + c])
        w[j + c] = x + (w[j + c] if k else 0)


@lines
def _down_box(e, i, line, u, n, patch):  # type: ignore[no-untyped-def]
    """Four lines of plain sums of five or more: what all four share is added once."""
    n, l1, l2, l3 = U(n), U(line), U(2 * line), U(3 * line)
    a0, a1, a2 = U(i), U(i + line), U(i + 2 * line)
    i += patch * line
    b0, b1, b2 = U(i), U(i + line), U(i + 2 * line)
    x, y = U(a2 + l1), U(a2 + l2)
    for c in range(n):
        u[l3 + c] = e[x + c] + e[y + c]
    for _ in range(5, patch, 2):
        x, y = U(x + l2), U(y + l2)
        for c in range(n):
            u[l3 + c] += e[x + c] + e[y + c]
    for c in range(n):
        shared, above, below = u[l3 + c], e[a1 + c] + e[a2 + c], e[b0 + c] + e[b1 + c]
        u[c] = shared + (e[a0 + c] + above)
        u[l1 + c] = shared + (above + e[b0 + c])
        u[l2 + c] = shared + (e[a2 + c] + below)
        u[l3 + c] = shared + (below + e[b2 + c])


@lines
def _across_box(u, i, s, line, w, j, n, patch):  # type: ignore[no-untyped-def]
    """Plain sums of five or more. s: the sums of two, and a line of the first of them."""
    x, y, z = U((patch - 5) * LANES), U((patch - 3) * LANES), U(i + (patch - 1) * LANES)
    a, b, j, next_, n = U(i), U(i + LANES), U(j), U(line), U(n)
    for c in range(U(n + y)):
        s[c] = u[a + c] + u[b + c]
    first = U(0) if patch == 7 else next_  # of five it stays zero
    if patch > 7:
        k = U(2 * LANES)
        for c in range(n):
            s[next_ + c] = s[c] + s[k + c]
        for m in range(4 * LANES, (patch - 5) * LANES, 2 * LANES):
            k = U(m)
            for c in range(n):
                s[next_ + c] += s[k + c]
    for c in range(n):
        w[j + c] = (s[first + c] + s[x + c]) + (s[y + c] + u[z + c])


@lines
def _add(w, i, gap, own, p, others, q, step, total, d, k, n, count):  # type: ignore[no-untyped-def]
    """What three weights, a `gap` apart, add to D, and to C if they `count`."""
    w0, w1, w2 = U(i), U(i + gap), U(i + 2 * gap)
    q0, q1, q2 = U(q), U(q + step), U(q + 2 * step)
    p, d, k = U(p), U(d), U(k)
    for c in range(U(n)):
        x, a, b, e = own[p + c], w[w0 + c], w[w1 + c], w[w2 + c]
        y0, y1, y2 = others[q0 + c], others[q1 + c], others[q2 + c]
        total[d + c] += (a * (y0 - x) + b * (y1 - x)) + e * (y2 - x)
        if count:
            total[k + c] += (a + b) + e


@lines
def _most(w, i, gap, m, k, n):  # type: ignore[no-untyped-def]
    w0, w1, w2, k = U(i), U(i + gap), U(i + 2 * gap), U(k)
    for c in range(U(n)):
        m[k + c] = max(m[k + c], max(max(w[w0 + c], w[w1 + c]), w[w2 + c]))


@lines
def _move(total, i, part, j, n, most):  # type: ignore[no-untyped-def]
    """Sums to those in float64."""
    i, j = U(i), U(j)
    for c in range(U(n)):
        a, b = total[i + c], part[j + c]
        total[i + c] = max(a, b) if most else a + b
        part[j + c] = 0


@lines
def _clear(w, i, n):  # type: ignore[no-untyped-def]
    i = U(i)
    for c in range(U(n)):
        w[i + c] = 0


@lines
def _clear_lanes(w, i, n, strip, first, before, after):  # type: ignore[no-untyped-def]
    """No weight where a strip, whose rows stand at `first` and on, leaves the slab or picture."""
    for lane in range(LANES):
        y = lane * strip + first
        if y < before or y >= after:
            for c in range(i + lane, i + n, LANES):
                w[c] = 0


@lines
def _weigh_rows(  # type: ignore[no-untyped-def]
    f, j, wide, scratch, line, here, a, there, b, plane, row, n, length, taps, planes, how
):
    """n lines of weights of one offset, j and on, of patches that begin at a `here`, b `there`."""
    e, u, s = scratch
    scale, shift, patch, box = how
    ready, seen = 0, length + len(taps) * LANES
    for i in range(0, n, FOUR):
        needed = min(i + FOUR, n) + patch - 1
        for r in range(ready, needed):
            for k in range(len(planes)):
                at = k * plane + r * row
                _differ(e, r * line, here, a + at, there, b + at, seen, planes[k], k > 0)
        ready = needed
        if box:
            _down_box(e, i * line, line, u, seen, patch)
        else:
            for r in range(FOUR):
                for k in range(0, len(taps), FOUR):
                    _add_four(e, (i + r + k) * line, line, u, r * line, seen, taps, k)
        for r in range(min(FOUR, n - i)):
            at = j + (i + r) * wide
            if box:
                _across_box(u, r * line, s, line, f, at, length, patch)
            else:
                for k in range(0, len(taps), FOUR):
                    _add_four(u, r * line + k * LANES, LANES, f, at, length, taps, k)
            if f.itemsize == 8:
                _weigh_double(f, at, length, scale, shift)
            else:
                _weigh(f, at, length, scale, shift)


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
    box,
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
    half, kinds, row = patch // 2, gained.shape[0], here.shape[2]
    plane, sums = here.shape[1] * row, gained.shape[1] * row
    x, y, won, given = here.ravel(), there.ravel(), gained.ravel(), lost.ravel()
    most, tall, side = min(COLUMNS, (w + 3) // 4 * 4), ROWS + 2 * reach, SIDE * LANES
    # lines of squares, of weights, of sums here and there, and from kind to kind of these
    line, wide = (most + len(taps)) * LANES, most * LANES + 2 * side
    near, far = most * LANES, (most + 2 * reach) * LANES + side
    near_kind, far_kind = ROWS * near, tall * far
    e = np.zeros((ROWS + len(taps) + FOUR) * line, here.dtype)
    u, s = np.zeros(FOUR * line, here.dtype), np.zeros(2 * line, here.dtype)
    f = np.zeros(3 * ROWS * wide, here.dtype)
    mine, theirs = np.zeros(kinds * near_kind, here.dtype), np.zeros(kinds * far_kind, here.dtype)
    how, scratch = (scale, shift, patch, box), (e, u, s)
    gap, last = ROWS * wide, channels + 1
    for up in range(0, strip, ROWS):
        n = min(ROWS, strip - up)
        for left in range(0, w, COLUMNS):
            across = (min(COLUMNS, w - left) + 3) // 4 * 4
            size, taken = across * LANES, 0
            a = (reach + up) * row + (reach + left) * LANES + side
            for dy in range(0 if same else -reach, reach + 1):
                before, after = -top - dy, min(rows, h - top - dy)
                for d in range(1 if same and dy == 0 else -reach, reach + 1, 3):
                    b = a + dy * row + d * LANES
                    for q in range(3):
                        at, dx = q * gap + side, d + q
                        if dx > reach:
                            for i in range(n):
                                _clear(f, at + i * wide, size + side)
                            continue
                        to = b + q * LANES
                        _weigh_rows(
                            *(f, at, wide, scratch, line, x, a, y, to, plane, row),
                            *(n, size, taps, planes, how),
                        )
                        low = min(max(-dx - left, 0), across) * LANES
                        high = min(max(w - max(dx, 0) - left, 0), across) * LANES
                        for i in range(n):
                            _clear(f, at, low)
                            _clear(f, at + high, size + side - high)
                            if up + i < before or (LANES - 1) * strip + up + i >= after:
                                _clear_lanes(f, at, size, strip, up + i, before, after)
                            at += wide
                    for i in range(n):
                        at = i * wide + side
                        own, to = i * near, (i + dy + reach) * far + (reach + d) * LANES
                        for k in range(channels):
                            m = (middle + k) * plane + (i + half) * row + half * LANES
                            _add(
                                *(f, at, gap, x, a + m, y, b + m, LANES, mine),
                                *(own + k * near_kind, own + channels * near_kind, size, k == 0),
                            )
                            # one pixel there is met by three here, of columns that go down
                            _add(
                                *(f, at, gap - LANES, y, b + m, x, a + m, -LANES, theirs),
                                *(to + k * far_kind, to + channels * far_kind, size + side, k == 0),
                            )
                        if largest:
                            _most(f, at, gap, mine, own + last * near_kind, size)
                            _most(f, at, gap - LANES, theirs, to + last * far_kind, size + side)
                    taken += 3
                    if taken > FLUSH or (dy == reach and d + 3 > reach):
                        taken = 0
                        for k in range(kinds):
                            for i in range(n):
                                own = k * near_kind + i * near
                                _move(won, k * sums + a + i * row, mine, own, size, k > channels)
                            b = k * sums + up * row + left * LANES + side
                            for i in range(n + 2 * reach):
                                to = k * far_kind + i * far
                                _move(
                                    given, b + i * row, theirs, to, size + far - near, k > channels
                                )
