"""Fixtures of the integration tests."""

from s3_server import s3_root, s3_server  # noqa: F401
