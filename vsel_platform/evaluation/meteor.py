"""METEOR 1.5 of captions, aligned by the Java program that the package pycocoevalcap brings along.

The program returns sums per caption; the score is computed from their totals here, so that captions can be resampled.
"""

import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import DataError, MissingPackageError

N_STATISTICS = 23
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
MODULE_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
"""Parameters for English: exact, stem, synonym and paraphrase matches."""

_MEMORY = "-Xmx2G"
_SEPARATOR = " ||| "


def meteor_command() -> list[str]:
    """Command line of the aligner. Raises MissingPackageError if the package or Java is not there."""
    java = shutil.which("java")
    package = importlib.util.find_spec("pycocoevalcap")
    places = [] if package is None else list(package.submodule_search_locations or ())
    jars = [jar for place in places if (jar := Path(place) / "meteor" / "meteor-1.5.jar").is_file()]
    if not jars:
        raise MissingPackageError(
            "METEOR needs the optional package pycocoevalcap: pip install 'vsel-platform[captioning]', or set the "
            "benchmark's option meteor to false"
        )
    if java is None:
        raise MissingPackageError(
            "METEOR needs Java and no program java is on the path: install a Java runtime (8 or newer), or set the "
            "benchmark's option meteor to false"
        )
    return [java, "-jar", _MEMORY, str(jars[0].resolve()), "-", "-", "-stdio", "-l", "en", "-norm"]


def meteor_statistics(captions: Sequence[str], references: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """Sums that METEOR is made of, float64 [captions, 23]; captions are tokens joined by blanks.

    Columns: length of caption and reference, function words of both, for each of the four kinds of match its content
    words in caption and reference and its function words in caption and reference, chunks (none if the caption equals
    a reference, as the program adds them up), matched words of caption and reference. Raises MissingPackageError
    without the package or Java, DataError if the program fails.
    """
    if not captions:
        return np.zeros((0, N_STATISTICS))
    lines = [_request(caption, group) for caption, group in zip(captions, references, strict=True)]
    done = subprocess.run(  # noqa: S603 - fixed program, no shell; texts only go to its standard input
        meteor_command(), input="\n".join(lines) + "\n", capture_output=True, encoding="utf-8", check=False
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    if done.returncode or len(rows) != len(lines) or any(len(row) != N_STATISTICS for row in rows):
        raise DataError(
            f"METEOR answered {len(rows)} of {len(lines)} captions (exit status {done.returncode}): "
            f"{done.stderr.strip()[-300:] or done.stdout[-300:]}"
        )
    found = np.array(rows, dtype=np.float64)
    whole = (found[:, 21] == found[:, 0]) & (found[:, 22] == found[:, 1]) & (found[:, 20] == 1)
    found[whole, 20] = 0.0
    return found


def _request(caption: str, references: Sequence[str]) -> str:
    texts = [" ".join(text.replace("|||", "").split()) for text in (*references, caption)]
    return "SCORE" + _SEPARATOR + _SEPARATOR.join(texts)


def meteor(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """METEOR in [0, 1] from sums [..., 23] of `meteor_statistics`; NaN without references.

    Source: Denkowski and Lavie 2014, "Meteor Universal", section 2, with the parameters for English.
    """
    matches = sums[..., 4:20].reshape(*sums.shape[:-1], 4, 4)
    chunks, caption_matches, reference_matches = sums[..., 20], sums[..., 21], sums[..., 22]
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = _weighted(matches[..., 0], matches[..., 2]) / _length(sums[..., 0], sums[..., 2])
        recall = _weighted(matches[..., 1], matches[..., 3]) / _length(sums[..., 1], sums[..., 3])
        mean = 1.0 / ((1.0 - ALPHA) / precision + ALPHA / recall)
        fragmentation = chunks / ((caption_matches + reference_matches) / 2.0)
        score = mean * (1.0 - GAMMA * fragmentation**BETA)
    found: NDArray[np.float64] = np.where(np.isfinite(score), score, 0.0)
    return np.where(sums[..., 1] > 0, found, np.nan)


def _weighted(content: NDArray[np.float64], function: NDArray[np.float64]) -> NDArray[np.float64]:
    total: NDArray[np.float64] = ((DELTA * content + (1.0 - DELTA) * function) * MODULE_WEIGHTS).sum(axis=-1)
    return total


def _length(words: NDArray[np.float64], function: NDArray[np.float64]) -> NDArray[np.float64]:
    return DELTA * (words - function) + (1.0 - DELTA) * function
