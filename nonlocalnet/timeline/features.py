"""What the network's last layer sees, second by second, as arrays that grow."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray
from torch import Tensor

from ..files import Growing
from .segments import Segment
from .telling import Telling, Told


class Features:
    """Two .npy files: float32 (n, C), the mean features of each second, and float64 (n,), when.

    `features = np.load("f.npy"); seconds = np.load("f.seconds.npy")`: row i is the mean of the
    input of the network's last layer over the moments that tell of the second that begins at
    seconds[i]. A second of which no moment tells has no row.
    """

    def __init__(self, path: Path, telling: Telling) -> None:
        self.telling = telling
        self._values = GrowingArray(path, "<f4")
        self._seconds = GrowingArray(path.with_suffix(".seconds.npy"), "<f8")
        self._second, self._count = -math.inf, 0
        self._sum: Tensor | None = None

    def told(self, told: Told) -> None:
        """Raises `ValueError` for a moment without features."""
        if told.moment.features is None:
            raise ValueError("these moments carry no features")
        second = math.floor(self.telling.about(told.moment))
        if second != self._second:
            self._write()
            self._second = second
        features = told.moment.features.detach().double().cpu()
        self._sum = features if self._sum is None else self._sum + features
        self._count += 1

    def segment(self, segment: Segment) -> None:
        pass

    def close(self, facts: Mapping[str, Any]) -> None:
        self._write()
        self._values.close()
        self._seconds.close()

    def _write(self) -> None:
        if self._sum is not None:
            self._values.add((self._sum / self._count).numpy())
            self._seconds.add(np.array(float(self._second)))
        self._sum, self._count = None, 0


class GrowingArray:
    """An .npy file that rows are added to; `np.load` reads it whenever the writing stopped."""

    def __init__(self, path: Path, kind: str) -> None:
        self.kind = kind
        self._file = Growing(path)
        self._rows = 0

    def add(self, row: NDArray[Any]) -> None:
        """One more row, of the shape of the first; then the number in the file's head."""
        if not self._rows:
            self._file.write(self._header(row.shape))
        self._file.write(row.astype(self.kind).tobytes())
        self._rows += 1
        self._file.write(self._header(row.shape), 0)

    def close(self) -> None:
        self._file.close()

    def _header(self, shape: tuple[int, ...]) -> bytes:
        about = {"descr": self.kind, "fortran_order": False, "shape": (self._rows, *shape)}
        head = io.BytesIO()
        write_array_header_1_0(head, about)  # with room for a number of rows that grows
        return head.getvalue()
