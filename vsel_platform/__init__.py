"""vsel_platform: data selection for visual instruction tuning."""

__version__ = "0.1.0"
