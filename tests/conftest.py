"""Shared by all tests: Triton interpreted, one torch thread, derandomized property tests in CI, goldens and data."""

import os
import sys
from pathlib import Path

# Triton decides when it is imported whether its kernels are interpreted: this comes before any import of it.
os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("dev", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(autouse=True)
def _one_torch_thread():
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def shared():
    """The folder ``../shared`` with goldens and data; skips where it is absent, fails if it must be there."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not path.is_dir():
        if os.environ.get("SOLOMONIC_REQUIRE_ALL"):
            pytest.fail(f"SOLOMONIC_REQUIRE_ALL is set, but {path} does not exist")
        pytest.skip(f"{path} does not exist: the goldens and data are not part of the repository")
    return path
