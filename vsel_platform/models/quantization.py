"""A frozen language model in 4 bits, for training a LoRA adapter beside it (QLoRA, arXiv 2305.14314)."""

from typing import Any

from vsel_platform.errors import MissingPackageError, ModelError

INSTALL = "pip install 'vsel-platform[qlora]'"


def quantize_language_model(model: Any, language: str, device: str) -> None:
    """Replace the linear layers below the path `language` by 4-bit ones (nf4, double quantisation), in place.

    Vision tower, projector, embeddings and output layer keep their precision; layers compute in the model's dtype.
    Every layer moves to `device` by itself, so that the whole model never has to fit there unquantised. An adapter
    trained beside them is one of the unquantised model. Raises MissingPackageError without bitsandbytes, ModelError if
    it cannot work on the device.
    """
    import torch

    bitsandbytes = _bitsandbytes()
    part = model.get_submodule(language)
    for path, layer in [(p, m) for p, m in part.named_modules() if type(m) is torch.nn.Linear]:
        parent, _, name = path.rpartition(".")
        try:
            setattr(part.get_submodule(parent), name, _quantized(bitsandbytes, layer, model.dtype, device))
        except (RuntimeError, NotImplementedError, ValueError) as error:
            raise ModelError(
                f"lora.quantization: bitsandbytes cannot quantise on {device}: {error}. Use a CUDA device, or "
                "quantization: none"
            ) from error
    model.is_loaded_in_4bit = True  # peft looks for it to put its own layers beside these


def _quantized(bitsandbytes: Any, layer: Any, dtype: Any, device: str) -> Any:
    found = bitsandbytes.nn.Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        compute_dtype=dtype,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )
    weight = layer.weight.data.to("cpu", copy=True).contiguous()
    found.weight = bitsandbytes.nn.Params4bit(
        weight, requires_grad=False, compress_statistics=True, quant_type="nf4", module=found
    )
    if layer.bias is not None:
        found.bias = layer.bias
    return found.to(device)


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes
    except ImportError as error:
        raise MissingPackageError(f"lora.quantization: nf4 needs bitsandbytes: {INSTALL}") from error
    return bitsandbytes
