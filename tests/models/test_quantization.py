"""The language model in 4 bits."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from tiny_families import tiny_family
from tiny_llava import tiny_adapter

from vsel_platform.config_training import LoraSettings, RuntimeSettings, TrainingSettings
from vsel_platform.errors import MissingPackageError, ModelError
from vsel_platform.models.quantization import quantize_language_model


class Params4bit(torch.nn.Parameter):
    """Weights that remember how they are to be quantised."""

    def __new__(cls, data, requires_grad, compress_statistics, quant_type, module):
        made = super().__new__(cls, data, requires_grad)
        made.how = (quant_type, compress_statistics)
        return made


class Linear4bit(torch.nn.Linear):
    """A layer with whole weights."""

    def __init__(self, n_in, n_out, *, bias, compute_dtype, compress_statistics, quant_type, device):
        super().__init__(n_in, n_out, bias=bias, device=device)
        self.compute_dtype = compute_dtype


@pytest.fixture
def library(monkeypatch):
    """What is used of bitsandbytes."""
    module = ModuleType("bitsandbytes")
    module.nn = SimpleNamespace(Linear4bit=Linear4bit, Params4bit=Params4bit)
    monkeypatch.setitem(sys.modules, "bitsandbytes", module)
    return module.nn


@pytest.mark.parametrize("make", [tiny_adapter, lambda: tiny_family("qwen3_vl").adapter()])
def test_only_the_language_models_linear_layers_are_quantised(library, make):
    adapter = make()
    model, language = adapter.model, adapter.parts.language
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = {p for p, m in model.named_modules() if type(m) is torch.nn.Linear and p.startswith(f"{language}.")}
    quantize_language_model(model, language, "cpu")
    found = {path: module for path, module in model.named_modules() if isinstance(module, Linear4bit)}
    assert found.keys() == expected
    assert {module.weight.how for module in found.values()} == {("nf4", True)}
    assert {module.compute_dtype for module in found.values()} == {torch.float32}
    assert not any(module.weight.requires_grad for module in found.values())
    assert model.is_loaded_in_4bit
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_a_device_that_cannot_is_named(library, monkeypatch):
    def refused(self, device):
        raise NotImplementedError("no kernel")

    monkeypatch.setattr(Linear4bit, "to", refused)
    with pytest.raises(ModelError, match=r"cannot quantise on cpu: no kernel\. Use a CUDA device"):
        quantize_language_model(tiny_adapter().model, "model.language_model", "cpu")


def test_without_bitsandbytes_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingPackageError, match=r"vsel-platform\[qlora\]"):
        quantize_language_model(tiny_adapter().model, "model.language_model", "cpu")


@pytest.mark.parametrize("kind", ["deepspeed", "fsdp"])
def test_quantised_weights_are_not_shared_out(kind):
    with pytest.raises(ValueError, match="4-bit weights cannot be shared out"):
        TrainingSettings(lora=LoraSettings(quantization="nf4"), runtime=RuntimeSettings(**{kind: "x.json"}))
