"""Ways through a model that must make no difference."""

import pytest

from vsel_platform.models import decoder_forward


@pytest.fixture(params=["together", "apart"])
def _prefixes(request, monkeypatch):
    """Beginnings that rows share pass with their branches, or before them."""
    monkeypatch.setattr(decoder_forward, "LONG_PREFIX", 1 if request.param == "apart" else 10**6)
