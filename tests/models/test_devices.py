"""Device and dtype names."""

import pytest
import torch

from vsel_platform.errors import ConfigError
from vsel_platform.models.devices import resolve_device, torch_dtype


def test_auto_is_a_device_that_exists():
    torch.empty(1, device=resolve_device("auto"))


def test_a_named_device_stays():
    assert resolve_device("cpu") == "cpu"


def test_an_unknown_device_is_a_config_error():
    with pytest.raises(ConfigError, match="'gpu' is no device"):
        resolve_device("gpu")


def test_cuda_without_cuda_is_a_config_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="sees no CUDA device"):
        resolve_device("cuda:1")


def test_dtypes_have_their_torch_names():
    assert [torch_dtype(name) for name in ("float32", "bfloat16", "float16")] == [
        torch.float32,
        torch.bfloat16,
        torch.float16,
    ]
