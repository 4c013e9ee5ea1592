"""Device and dtype names."""

import pytest
import torch

from vsel_platform.errors import ConfigError
from vsel_platform.models.devices import own_device, resolve_device, torch_dtype


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


def test_each_job_has_a_cuda_device_of_its_own_while_there_are_some(monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    with own_device("auto") as first, own_device("cuda") as second, own_device("auto") as third:
        assert (first, second, third) == ("cuda:0", "cuda:1", "cuda:0")
    with own_device("auto") as again:
        assert again == "cuda:0"
    with own_device("cuda:1") as named:
        assert named == "cuda:1"


def test_one_device_or_none_is_left_to_the_settings(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with own_device("auto") as device:
        assert device == "auto"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with own_device("auto") as device:
        assert device == "auto"
