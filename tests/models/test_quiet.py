"""Loading without noise."""

import warnings

import pytest
from transformers.utils import logging

from vsel_platform.models.quiet import quiet_transformers


def test_what_was_set_before_is_set_afterwards():
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with pytest.raises(KeyError), quiet_transformers():
        assert logging.get_verbosity() == logging.ERROR
        assert not logging.is_progress_bar_enabled()
        raise KeyError
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_only_future_warnings_are_hidden():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with quiet_transformers():
            warnings.warn("later", FutureWarning, stacklevel=1)
            warnings.warn("now", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["now"]


def test_progress_bars_that_were_off_stay_off():
    logging.disable_progress_bar()
    try:
        with quiet_transformers():
            pass
        assert not logging.is_progress_bar_enabled()
    finally:
        logging.enable_progress_bar()
