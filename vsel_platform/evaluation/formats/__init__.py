"""Benchmarks: how each one's published files are read, its answers judged and its metrics computed."""
