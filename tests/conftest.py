"""What tests share: one thread each, whatever the load, a fresh compiler, one Chromium."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch
from browser import chromium as chromium


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    with warnings.catch_warnings():  # torch's own deprecations while it traces
        warnings.simplefilter("ignore")
        yield
