"""Checkpoints with an image and a text tower whose vectors lie in one joint space."""

from vsel_platform.errors import ModelError

# CLIP masks the padding of a text and reads the vector at its end token. SigLIP and SigLIP2 were trained with every
# text padded to the longest one that the tower takes, without a mask.
JOINT_ARCHITECTURES = {"clip", "siglip", "siglip2"}
FULL_LENGTH_TEXTS = {"siglip", "siglip2"}


def check_joint(architecture: str, where: str) -> None:
    """Raise ModelError, beginning with `where`, if checkpoints of the architecture (`model_type` of config.json) do not
    hold both towers."""
    if architecture not in JOINT_ARCHITECTURES:
        raise ModelError(
            f"{where}: feature joint needs a checkpoint with an image and a text tower "
            f"({', '.join(sorted(JOINT_ARCHITECTURES))}), and this one is {architecture}; name another model, or leave "
            "`feature` out"
        )
