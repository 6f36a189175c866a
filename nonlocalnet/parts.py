"""Rows as a folder of Parquet parts, each there whole or not at all: work that can go on."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .errors import UserError
from .files import replacing, write_text

try:
    from pyarrow import (
        ArrowException,
        Table,
        float32,
        float64,
        int32,
        int64,
        list_,
        parquet,
        schema,
        string,
    )
except ImportError as error:
    raise ImportError('Parquet files need pyarrow: pip install "nonlocalnet[scale]"') from error

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # Windows; two runs that write to the same folder there are not told apart
    flock = None  # type: ignore[assignment]

TYPES = {
    "string": string(),
    "strings": list_(string()),
    "int32s": list_(int32()),
    "int64": int64(),
    "floats": list_(float32()),
    "double": float64(),
}
ROWS = 5000  # of a part
SECONDS = 60.0  # after which a part is written that has fewer: what a kill may cost

Row = Mapping[str, Any]


class Parts:
    """Rows added to `folder`/part-NNNNN.parquet; each has a `path`, and an `error` or None.

    `done` holds the paths of all rows that are in finished parts, `errors` counts their reasons.
    Leaving the `with` block, by an error too, writes what has been added. `job` is what the rows
    depend on; it is kept beside them, and rows of another job are not added to them.

    Names beginning with _ are ignored by what reads such folders (pandas, polars, duckdb, spark).

    Raises `UserError` for a folder that cannot be written, holds a damaged part or the rows of
    another job, or that another process is writing to.

    columns: name -> key of `TYPES`.
    """

    def __init__(self, folder: Path, columns: Mapping[str, str], job: Mapping[str, Any]) -> None:
        self.folder = folder
        self.schema = schema({name: TYPES[kind] for name, kind in columns.items()})
        self.done: set[str] = set()
        self.errors: Counter[str] = Counter()
        self._rows: list[Row] = []
        self._since = time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / ".lock").open("ab")
        except OSError as error:
            raise UserError(f"{folder} cannot be written: {error.strerror or error}") from error
        try:
            self._open(json.loads(json.dumps(job)))
        except BaseException:
            self._lock.close()
            raise

    def _open(self, job: Any) -> None:
        self._alone()
        self._same_job(job)
        for pattern in (".part-*.parquet.*", "._*.json.*"):
            for left in self.folder.glob(pattern):  # by a run that was killed
                left.unlink()
        parts = sorted(self.folder.glob("part-*.parquet"))
        self._next = 1 + max((int(part.stem.removeprefix("part-")) for part in parts), default=-1)
        for part in parts:
            self._read(part)

    def _alone(self) -> None:
        if flock is None:
            return
        try:
            flock(self._lock, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{self.folder} is being written by another run") from None
        except OSError:
            return  # not every file system can

    def _same_job(self, job: Any) -> None:
        path = self.folder / "_job.json"
        if not path.exists():
            self.write("_job.json", json.dumps(job, indent=1))
            return
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            known = {}
        differ = [key for key in job if known.get(key) != job[key]]
        if differ:
            before = ", ".join(f"{key} {known.get(key)}" for key in differ)
            now = ", ".join(str(job[key]) for key in differ)
            raise UserError(
                f"{self.folder} holds predictions with {before}, not {now}; choose another folder"
            )

    def _read(self, part: Path) -> None:
        try:
            table = parquet.read_table(part, columns=["path", "error"])
        except (OSError, ArrowException) as error:
            raise UserError(
                f"{part} cannot be read ({error}); delete it, and its files are done again"
            ) from None
        self.done.update(table["path"].to_pylist())
        self.errors.update(error for error in table["error"].to_pylist() if error is not None)

    def add(self, row: Row) -> None:
        """One row more; now and then a part is written."""
        self._rows.append(row)
        if len(self._rows) >= ROWS or time.monotonic() - self._since > SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what has been added as a part."""
        if self._rows:
            with replacing(self.folder / f"part-{self._next:05d}.parquet") as new:
                parquet.write_table(Table.from_pylist(self._rows, self.schema), new)
            self.done.update(row["path"] for row in self._rows)
            self.errors.update(row["error"] for row in self._rows if row["error"] is not None)
            self._rows, self._next = [], self._next + 1
        self._since = time.monotonic()

    def write(self, name: str, text: str) -> None:
        """A small file beside the parts, whole or not at all."""
        write_text(self.folder / name, text + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.flush()
        finally:
            self._lock.close()
