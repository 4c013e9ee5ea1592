"""Benchmark formats by name."""

import importlib

from vsel_platform.config_evaluation import Format
from vsel_platform.evaluation.benchmark import BenchmarkFormat


def benchmark_format(name: Format) -> BenchmarkFormat:
    """The format of a benchmark."""
    found: BenchmarkFormat = importlib.import_module(f"vsel_platform.evaluation.formats.{name}").FORMAT
    return found
