import http.server
import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
BIN = Path(sys.executable).parent
OURS = ("code-server", "webserver", "daemon", "vsel")
LONG_RUNNING = ("postgres", "code-server", "webserver", "daemon")
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY")
VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::([-?])([^}]*))?\}")


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((DOCKER / name).read_text())


COMPOSE = load("compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def dockerfile() -> list[tuple[str, str]]:
    """(instruction, arguments) of the Dockerfile, continued lines joined, comments dropped."""
    text = re.sub(r"^\s*#.*\n", "", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [tuple(line.split(None, 1)) for line in lines if line.strip()]


def last_stage() -> list[tuple[str, str]]:
    steps = dockerfile()
    return steps[max(i for i, (name, _) in enumerate(steps) if name == "FROM") :]


def argument(name: str) -> str:
    return next(text for step, text in last_stage() if step == name)


def test_the_services_of_a_deployment_are_there() -> None:
    assert set(SERVICES) == {*LONG_RUNNING, "vsel"}
    assert SERVICES["vsel"]["profiles"] == ["cli"], "a plain `up` must not start the command line"


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_can_do_more_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["user"].split(":")[0] not in ("0", "root")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"}
    assert "docker.sock" not in str(service)


def test_only_the_web_server_is_published_and_only_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert list(published) == ["webserver"]
    assert all(port.startswith("127.0.0.1:") for port in published["webserver"])


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned_to_a_version(name: str) -> None:
    image = VARIABLE.sub(lambda match: match[3], SERVICES[name]["image"])
    assert re.fullmatch(r"[a-z-]+:[\w.-]+", image), image
    assert not image.endswith(":latest")


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_every_long_running_service_has_a_health_check(name: str) -> None:
    if name == "postgres":
        assert SERVICES[name]["healthcheck"]["test"][:2] == ["CMD", "pg_isready"]
        return
    role = SERVICES[name]["environment"]["VSEL_ROLE"]
    assert role == name
    assert "healthcheck" not in SERVICES[name], "the image's check is used"
    assert f"    {role})\n" in (DOCKER / "healthcheck.sh").read_text()


def test_services_wait_until_what_they_need_is_healthy() -> None:
    for name, service in SERVICES.items():
        for needed, condition in service.get("depends_on", {}).items():
            assert needed in LONG_RUNNING, name
            assert condition == {"condition": "service_healthy"}
    assert set(SERVICES["daemon"]["depends_on"]) == {"postgres", "code-server"}


def test_named_volumes_are_declared_used_and_owned_by_the_user_of_the_image() -> None:
    owned = shlex.split(argument("RUN").split("install -d -o 10001 -g 10001")[1])
    used: dict[str, str] = {}
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source, target = VARIABLE.sub("bind", volume).split(":")[:2]
            if source != "bind":
                used[source] = target
            if name in OURS:
                assert target in owned
    assert set(used) == set(COMPOSE["volumes"])


def test_data_and_project_cannot_be_written() -> None:
    for name in ("code-server", "vsel"):
        binds = [volume for volume in SERVICES[name]["volumes"] if volume.startswith("${")]
        assert len(binds) == 2
        assert all(volume.endswith(":ro") for volume in binds)


@pytest.mark.parametrize("name", ["webserver", "daemon"])
def test_what_does_not_run_the_work_sees_neither_data_nor_credentials(name: str) -> None:
    assert SERVICES[name]["volumes"] == ["dagster-home:/dagster"]
    assert not any(key.startswith(("AWS", "HF_")) for key in SERVICES[name]["environment"])


@pytest.mark.parametrize("name", SERVICES)
def test_secrets_come_from_the_environment(name: str) -> None:
    for key, value in SERVICES[name]["environment"].items():
        if SECRET.search(key):
            assert value is None or re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), key


def test_the_example_environment_names_every_variable_and_holds_no_secret() -> None:
    lines = [line.removeprefix("# ") for line in (DOCKER / ".env.example").read_text().splitlines()]
    example = dict(line.split("=", 1) for line in lines if re.match(r"[A-Z_]+=", line))
    text = (DOCKER / "compose.yaml").read_text()
    handed_on = {key for key, value in SERVICES["code-server"]["environment"].items() if value is None}
    wanted = {name for name, _, _ in VARIABLE.findall(text)} | handed_on
    assert wanted - set(example) == {"VSEL_IMAGE", "POSTGRES_IMAGE"}
    assert set(example) <= wanted
    assert not any(value for key, value in example.items() if SECRET.search(key))
    required = {name for name, kind, _ in VARIABLE.findall(text) if kind == "?"}
    assert {name for name, value in example.items() if not value} >= required


def test_the_workspace_names_the_code_server_as_compose_starts_it() -> None:
    (entry,) = load("workspace.yaml")["load_from"]
    command = SERVICES["code-server"]["command"]
    options = dict(zip(command[3::2], command[4::2], strict=True))
    assert entry["grpc_server"]["host"] in SERVICES
    assert str(entry["grpc_server"]["port"]) == options["--port"]
    assert entry["grpc_server"]["location_name"] == options["--location-name"]
    assert (ROOT / f"{options['--module-name']}.py").is_file()
    assert ("WORKDIR", options["--working-directory"]) in last_stage()


def commands() -> list[list[str]]:
    checks = re.findall(r"exec (dagster[^\n]*)", (DOCKER / "healthcheck.sh").read_text())
    return [
        *(SERVICES[name]["command"] for name in ("code-server", "webserver", "daemon")),
        *(shlex.split(check) for check in checks),
    ]


@pytest.mark.parametrize("command", commands(), ids=lambda c: "-".join(w for w in c if not w.startswith("-"))[:40])
def test_every_command_exists_with_its_options(command: list[str]) -> None:
    assert (BIN / command[0]).is_file()
    (script,) = entry_points(group="console_scripts", name=command[0])
    parser = import_module(script.module).cli
    rest = command[1:]
    while rest and not rest[0].startswith("-"):
        parser = parser.commands[rest.pop(0)]
    known = {name for option in parser.params for name in option.opts}
    assert {word for word in rest if word.startswith("--")} <= known


def test_the_command_line_service_starts_a_command_of_the_package() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert SERVICES["vsel"]["entrypoint"][-1] in scripts
    image = shlex.split(argument("ENTRYPOINT").strip("[]").replace(",", ""))
    assert SERVICES["vsel"]["entrypoint"][:-1] == image


def test_the_gpu_override_changes_known_services_only() -> None:
    override = load("compose.gpu.yaml")["services"]
    assert set(override) == set(OURS)
    (device,) = override["code-server"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert set(override["code-server"]["build"]["args"]) <= {
        text.split("=")[0] for n, text in dockerfile() if n == "ARG"
    }
    assert len({service["image"] for service in override.values()}) == 1


def test_the_image_runs_as_an_ordinary_user_under_an_init_process() -> None:
    assert argument("USER") == "10001:10001"
    assert argument("ENTRYPOINT").startswith('["tini", "-g", "--"')
    assert "healthcheck.sh" in argument("HEALTHCHECK")
    assert SERVICES["code-server"]["user"] == argument("USER")


def test_the_image_is_built_from_pinned_parts_and_nothing_is_fetched_unchecked() -> None:
    steps = dockerfile()
    assert not [text for name, text in steps if name == "ADD"]
    assert not [text for name, text in steps if name == "RUN" and re.search(r"curl|wget|trusted-host", text)]
    installs = [text for name, text in steps if name == "RUN" and "pip install" in text]
    assert installs
    assert all("-c constraints.txt" in text for text in installs)
    default = next(text.split("=", 1)[1] for name, text in steps if name == "ARG" and text.startswith("PYTHON_IMAGE"))
    assert re.fullmatch(r"python:3\.11-slim-bookworm", default)
    assert {text.split()[0] for name, text in steps if name == "FROM"} == {"${PYTHON_IMAGE}"}
    assert not [text for name, text in steps if name in ("ARG", "ENV") and SECRET.search(text)]


def test_what_the_image_copies_exists_and_is_let_through() -> None:
    ignore = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignore, "everything is left out unless it is named"
    sources = [
        source
        for name, text in dockerfile()
        if name == "COPY" and not text.startswith("--from")
        for source in text.split()[:-1]
    ]
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source.rstrip('/')}" in ignore
    assert {"assets/", "automation/", "resources/", "definitions.py"} <= set(sources)


def run_script(name: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the image in the repository, where the image has /app."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("DAGSTER_PG", "VSEL_"))}
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["sh", str(DOCKER / name), *words],
        cwd=ROOT,
        env=clean | {"PATH": path} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("role", ["code-server", ""])
def test_the_entry_point_prepares_the_instance_and_becomes_the_command(role: str, tmp_path: Path) -> None:
    result = run_script("entrypoint.sh", "echo", "a b", DAGSTER_HOME=str(tmp_path / "home"), VSEL_ROLE=role)
    assert (result.returncode, result.stdout) == (0, "a b\n")
    assert (tmp_path / "home" / "dagster.yaml").read_bytes() == (ROOT / "dagster.yaml").read_bytes()


def test_the_entry_point_stops_when_the_database_is_half_described(tmp_path: Path) -> None:
    result = run_script("entrypoint.sh", "echo", "started", DAGSTER_HOME=str(tmp_path), DAGSTER_PG_HOST="postgres")
    assert result.returncode != 0
    assert result.stdout == ""
    assert "DAGSTER_PG_PASSWORD" in result.stderr


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers /server_info as the web server does."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/server_info" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


def test_the_web_server_is_healthy_while_it_answers() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        port = str(server.server_port)
        Thread(target=server.serve_forever, daemon=True).start()
        assert run_script("healthcheck.sh", VSEL_ROLE="webserver", VSEL_WEBSERVER_PORT=port).returncode == 0
        server.shutdown()
    assert run_script("healthcheck.sh", VSEL_ROLE="webserver", VSEL_WEBSERVER_PORT=port).returncode != 0


def test_an_unknown_role_is_not_healthy() -> None:
    result = run_script("healthcheck.sh", VSEL_ROLE="database")
    assert result.returncode == 1
    assert "VSEL_ROLE=database" in result.stderr
