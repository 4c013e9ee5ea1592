"""Dagster assets in the order in which data walks: each loads, calls one stage, and reports."""
