"""The binary and a model, for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def binary() -> str:
    """The binary: what `BROLGA` names, or that of the debug build."""
    path = Path(os.environ.get("BROLGA", ROOT / "target/debug/brolga")).resolve()
    assert path.is_file(), f"there is no {path}: build it, or name it with BROLGA"
    return str(path)


@pytest.fixture(scope="session")
def model() -> Path:
    """The digits: a small convolutional network."""
    return ROOT / "examples/digits/digits.onnx"
