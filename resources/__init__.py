"""Dagster resources: thin wrappers that open the engine's stores and the compute backend."""
