"""The forms of the operation that are fast without the matrix of pairs."""

# Pairs whose scores may exist at once: 2 MB of float32, about one core's share of a cache.
PAIRS_AT_ONCE = 2**19
