"""What is done, line by line."""

from __future__ import annotations

from pathlib import Path

import pytest

from nonlocalnet.errors import UserError
from nonlocalnet.ledger import Ledger


def test_what_was_found_is_known_again(tmp_path: Path) -> None:
    path = tmp_path / "done.jsonl"
    with Ledger(path) as ledger:
        ledger.add("a", [1, ["x"]], [5])
        ledger.add("b", [1, ["x"]], [6])
        ledger.add("b", [2, ["x"]], [7])
    with path.open("a") as file:
        file.write('["c", [1], 8')  # the process was killed
    with Ledger(path) as ledger:
        assert ledger.get("a", [1, ["x"]]) == [5]
        assert ledger.get("a", [2, ["x"]]) is None  # it changed
        assert ledger.get("b", [2, ["x"]]) == [7]
        assert ledger.get("c", [1]) is None
        ledger.add("c", [1], [9])
    with Ledger(path) as ledger:
        assert ledger.get("c", [1]) == [9]
    with pytest.raises(UserError, match="cannot be written"):
        Ledger(tmp_path)
