"""The forms of the operation that are fast without the matrix of pairs."""
