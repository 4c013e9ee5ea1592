"""A language model's decoder, run only as deep as somebody needs it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from vsel_platform.errors import ModelError
from vsel_platform.models.attention import AttentionRecorder, recording

if TYPE_CHECKING:
    import torch


def decoder_states(
    decoder: Any,
    inputs: Mapping[str, Any],
    *,
    layers: Sequence[int],
    recorder: AttentionRecorder | None = None,
) -> "dict[int, torch.Tensor]":
    """Hidden states [rows, tokens, width] after decoder layers, numbered from 1; deeper layers do not run.

    `decoder` is a transformers text model with `layers`; `inputs` are its arguments. Attention goes to `recorder`.
    Raises ModelError if nothing is asked for, or a layer that the decoder has not.
    """
    depth = _depth(len(decoder.layers), [*layers, *(layer + 1 for layer in (recorder.layers if recorder else ()))])
    with first_layers(decoder, depth), observed(decoder, layers, recorder) as states:
        decoder(use_cache=False, **inputs)
    return states


@contextmanager
def observed(
    decoder: Any, layers: Sequence[int], recorder: AttentionRecorder | None = None
) -> "Iterator[dict[int, torch.Tensor]]":
    """Keep hidden states after `layers` (from 1) of the forward passes inside, which run over consecutive tokens;
    attention goes to `recorder`."""
    import torch

    states: dict[int, torch.Tensor] = {}

    def keep(number: int) -> Any:
        def hook(module: Any, arguments: Any, output: Any) -> None:
            found = output[0] if isinstance(output, tuple) else output
            states[number] = torch.cat([states[number], found], dim=1) if number in states else found

        return hook

    handles = [decoder.layers[number - 1].register_forward_hook(keep(number)) for number in layers]
    try:
        with recording(decoder.config, recorder) if recorder else nullcontext():
            yield states
    finally:
        for handle in handles:
            handle.remove()


def _depth(n_layers: int, wanted: Sequence[int]) -> int:
    """Number of layers that have to run for the `wanted` ones, numbered from 1."""
    if not wanted or min(wanted) < 1 or max(wanted) > n_layers:
        numbers = ", ".join(str(number) for number in wanted) or "none"
        raise ModelError(f"decoder layers {numbers} are asked for; the model has 1 to {n_layers}")
    return max(wanted)


@contextmanager
def first_layers(decoder: Any, depth: int) -> Iterator[None]:
    """The decoder without the layers behind the first `depth`."""
    everything = decoder.layers
    decoder.layers = everything[:depth]
    try:
        yield
    finally:
        decoder.layers = everything
