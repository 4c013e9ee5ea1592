import stat
from types import SimpleNamespace

import numpy as np
import pytest

from vsel_platform.errors import DataError, MissingPackageError
from vsel_platform.evaluation import meteor as module
from vsel_platform.evaluation.meteor import meteor, meteor_command, meteor_statistics

# Sums that the published program (METEOR 1.5, English) gives for five captions, and its scores of them.
SUMS = np.array(
    [
        [11, 4, 3, 1, 3, 3, 1, 1, *[0] * 12, 3, 4, 4],
        [18, 9, 10, 3, 4, 4, 2, 2, *[0] * 9, 1, 1, 0, 5, 7, 7],
        [2, 2, 1, 1, 1, 1, 1, 1, *[0] * 12, 0, 2, 2],
        [21, 7, 8, 2, 5, 5, 2, 2, *[0] * 12, 3, 7, 7],
        [2, 2, 1, 1, 1, 1, 1, 1, *[0] * 12, 0, 2, 2],
    ],
    dtype=float,
)
SCORES = [0.34545616989885164, 0.2968422573406095, 1.0, 0.3902310244460502, 1.0]
CORPUS = 0.3709150088768809


def test_scores_are_those_of_the_published_program():
    np.testing.assert_allclose(meteor(SUMS), SCORES, rtol=0, atol=1e-12)
    assert meteor(SUMS.sum(axis=0)) == pytest.approx(CORPUS, abs=1e-12)


def test_no_match_is_zero_and_no_reference_is_not_defined():
    assert meteor(np.array([2, 3, 0, 1, *[0.0] * 19])) == 0
    assert meteor(np.array([0, 2, 0, 1, *[0.0] * 19])) == 0
    assert np.isnan(meteor(np.zeros(23)))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package without the real program."""
    (tmp_path / "meteor").mkdir()
    (tmp_path / "meteor" / "meteor-1.5.jar").touch()
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: found)
    monkeypatch.setattr(module.shutil, "which", lambda name: "/usr/bin/java")
    return tmp_path


def test_command_line(package):
    command = meteor_command()
    assert command[:2] == ["/usr/bin/java", "-jar"] and command[-3:] == ["-l", "en", "-norm"]
    assert command[3] == str(package / "meteor" / "meteor-1.5.jar")


def test_what_is_missing_is_named(package, monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    with pytest.raises(MissingPackageError, match="Java"):
        meteor_command()
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"pip install 'vsel-platform\[captioning\]'"):
        meteor_command()


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Let a shell script answer in place of the aligner; it keeps what it was asked."""

    def answer(body):
        script = tmp_path / "aligner"
        script.write_text(f"#!/bin/sh\ncat > {tmp_path}/asked\n{body}\n", "utf-8")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(module, "meteor_command", lambda: [str(script)])
        return tmp_path / "asked"

    return answer


def row(*values):
    return " ".join(map(str, values))


def test_captions_go_to_the_program_and_chunks_of_perfect_ones_are_not_added_up(program):
    perfect = row(2, 2, 1, 1, 1, 1, 1, 1, *[0] * 12, 1, 2, 2)
    partial = row(3, 2, 1, 1, 1, 1, 0, 0, *[0] * 12, 1, 1, 1)
    asked = program(f"echo '{perfect}'\necho '{partial}'")
    found = meteor_statistics(["a pizza", "a  ||| b"], [["a pizza", "food"], ["a\nc"]])
    assert asked.read_text("utf-8") == "SCORE ||| a pizza ||| food ||| a pizza\nSCORE ||| a c ||| a b\n"
    assert found.shape == (2, 23) and found[:, 20].tolist() == [0, 1]


@pytest.mark.parametrize("body", ["exit 1", "echo 1 2 3", "echo broken >&2; exit 3"])
def test_a_program_that_fails_is_reported(program, body):
    program(body)
    with pytest.raises(DataError, match=r"METEOR answered \d of 1 captions"):
        meteor_statistics(["a"], [["b"]])


def test_nothing_to_align_starts_no_program(monkeypatch):
    monkeypatch.setattr(module, "meteor_command", lambda: pytest.fail("started"))
    assert meteor_statistics([], []).shape == (0, 23)
