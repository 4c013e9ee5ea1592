"""Tokens of images as a vision tower gives them: patches of the same thing, and much that all tokens share."""

import torch


def correlated_tokens(images: int, count: int, width: int, *, common: float = 3.0, seed: int = 0) -> torch.Tensor:
    """float32 [images, count, width]: of eight things in 4 x 4 patches, noise, and a mean of variance `common`."""
    generator = torch.Generator().manual_seed(seed)
    side = round(count**0.5)
    mean = torch.randn(1, 1, width, generator=generator) * common**0.5
    things = torch.randn(images, 8, width, generator=generator)
    patches = torch.randint(0, 8, (images, side // 4 + 1, side // 4 + 1), generator=generator)
    which = patches.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, :side, :side].reshape(images, -1)
    noise = torch.randn(images, count, width, generator=generator)
    return mean + torch.gather(things, 1, which[..., None].expand(-1, -1, width)) + noise
