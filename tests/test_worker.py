"""The worker: one job file in, one result out, errors as messages and exit codes."""

import subprocess
import sys

import orjson
import pytest

from vsel_platform.config import parse_project
from vsel_platform.errors import ConfigError
from vsel_platform.pipeline.context import no_progress
from vsel_platform.worker import JOBS, Job, RateLimitedProgress, main, run_job

PROJECT = parse_project("name: p\ndatasets: {a: {source: a.json}}\n", base_dir="/nowhere")


def test_job_survives_its_file():
    job = Job(stage="losses", key="s-1", project=PROJECT, run_id="r")
    assert Job.model_validate_json(job.to_json()) == job


def test_unknown_stage_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="image_embeddings"):
        run_job(Job(stage="dance", key="x", project=PROJECT), no_progress)


def test_engine_errors_become_exit_codes(tmp_path, capsys):
    project = PROJECT.model_copy(update={"store": str(tmp_path / "store")})
    file = tmp_path / "job.json"
    file.write_bytes(Job(stage="image_embeddings", key="none", project=project).to_json())
    assert main([str(file), str(tmp_path / "result.json")]) == 4
    assert "has not been materialized" in capsys.readouterr().err
    assert not (tmp_path / "result.json").exists()


def test_wrong_arguments_print_the_usage(capsys):
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err


def test_progress_is_rate_limited_and_always_reports_the_end():
    lines: list[str] = []
    progress = RateLimitedProgress(lines.append, interval_s=3600)
    for done in range(1, 101):
        progress("rows", done, 100)
    assert len(lines) == 2
    assert lines[-1].startswith("100 of 100 rows")
    assert "0 s left" in lines[-1]


def test_naming_jobs_imports_no_model_code():
    code = "import sys, vsel_platform.worker as w; print(len(w.JOBS), 'torch' in sys.modules, 'faiss' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert out == [str(len(JOBS)), "False", "False"]


def test_results_are_plain_json():
    from vsel_platform.pipeline.context import StageResult

    result = StageResult("losses", {"shard": "s"}, "v", 3, metadata={"x": 1.5})
    assert StageResult(**orjson.loads(orjson.dumps(result.to_dict()))) == result
