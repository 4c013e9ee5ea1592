"""Decoding ahead, and failures as records."""

import io
import threading

import pytest
from PIL import Image

from vsel_platform.errors import DataError
from vsel_platform.models import images
from vsel_platform.models.images import ContentFailure, attempt_image, decode_ahead


def raising(error):
    def load():
        raise error

    return load


def png(size=(4, 4)):
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError("no such file"), "image_missing"),
        (Image.DecompressionBombError("too many pixels"), "image_too_large"),
        (OSError("image file is truncated"), "image_unreadable"),
        (SyntaxError("broken PNG file"), "image_unreadable"),
        (ValueError("bad"), "image_unreadable"),
        (DataError("cannot be decoded"), "image_unreadable"),
    ],
)
def test_a_broken_image_is_a_record_with_its_reason(error, reason):
    failure = attempt_image("a", raising(error))
    assert isinstance(failure, ContentFailure)
    assert (failure.content_id, failure.reason) == ("a", reason)
    assert str(error) in failure.detail


def test_the_cause_of_a_data_error_gives_the_reason():
    def load():
        raise DataError("x.png: cannot be read") from FileNotFoundError("x.png")

    assert attempt_image("a", load).reason == "image_missing"


@pytest.mark.parametrize("error", [ConnectionResetError("reset"), TimeoutError("late"), KeyError("bug")])
def test_errors_that_say_nothing_about_the_image_are_raised(error):
    with pytest.raises(type(error)):
        attempt_image("a", raising(error))


def test_a_lost_connection_inside_a_data_error_is_raised():
    def load():
        raise DataError("s3://x: cannot be read") from ConnectionResetError("reset")

    with pytest.raises(DataError):
        attempt_image("a", load)


@pytest.mark.parametrize("cut", [0, 1, 20, 60])
def test_a_cut_off_file_is_unreadable(cut):
    data = png((64, 64))[:cut]
    failure = attempt_image("a", lambda: Image.open(io.BytesIO(data)).convert("RGB"))
    assert failure.reason == "image_unreadable"


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_the_order_of_the_items(workers):
    items = [(str(i), lambda i=i: i) if i % 7 else (str(i), raising(OSError("bad"))) for i in range(100)]
    found = list(decode_ahead(items, workers=workers))
    assert [image_id for image_id, _ in found] == [str(i) for i in range(100)]
    assert [value for _, value in found if isinstance(value, int)] == [i for i in range(100) if i % 7]


@pytest.mark.parametrize("workers", [1, 2])
def test_only_a_bounded_number_is_decoded_ahead(workers):
    started = []
    items = [(str(i), lambda i=i: started.append(i)) for i in range(1000)]
    stream = decode_ahead(items, workers=workers)
    next(stream)
    assert len(started) <= workers * images.READ_AHEAD
    stream.close()


def test_without_workers_nothing_runs_in_another_thread():
    names = [value for _, value in decode_ahead([("a", lambda: threading.current_thread().name)], workers=0)]
    assert names == [threading.current_thread().name]
