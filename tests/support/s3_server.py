"""A real HTTP S3 server (moto's server process) for tests; import the fixtures in a conftest.py."""

import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BUCKET = "vsel-tests"
START_LIMIT_S = 60


@contextmanager
def moto_server() -> Iterator[str]:
    """Start the server on a free port of the loopback interface; yields its endpoint URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = Path(sys.executable).with_name("moto_server")
    program = str(command) if command.exists() else str(shutil.which("moto_server"))
    process = subprocess.Popen(
        [program, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"moto_server ended with {process.returncode}")
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("moto_server does not answer")


def s3_environment(endpoint: str) -> dict[str, str]:
    """Environment that leads every S3 client to `endpoint`."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
    }


@contextmanager
def s3_settings(endpoint: str) -> Iterator[None]:
    """Set the environment for a while; cached clients of another endpoint are dropped before and after."""
    from s3fs import S3FileSystem

    wanted = s3_environment(endpoint)
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    S3FileSystem.clear_instance_cache()
    try:
        yield
    finally:
        S3FileSystem.clear_instance_cache()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Endpoint of a running server with one empty bucket; `AWS_*` point to it for the whole session."""
    with moto_server() as endpoint, s3_settings(endpoint):
        from s3fs import S3FileSystem

        S3FileSystem().mkdir(BUCKET)
        yield endpoint


@pytest.fixture
def s3_root(s3_server: str) -> str:
    """Root of a fresh store on the server."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"
