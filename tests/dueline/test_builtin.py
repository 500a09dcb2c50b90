"""The executor classes that every executor has."""

import json
import os
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dueline.builtin import command, http
from dueline.errors import InvalidJob
from dueline.registry import Failed, Run


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def run_of(executor_class: str, timeout_s: float = 10, **params: Any) -> Run:
    return Run(
        run_id="job@1700000000000",
        job_id="job",
        executor_class=executor_class,
        attempt=2,
        due=datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
        params=params,
        timeout=timedelta(seconds=timeout_s),
        deadline=datetime.now(UTC) + timedelta(seconds=timeout_s),
    )


def test_a_program_gets_a_minimal_environment_and_what_was_asked_for(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "of the executor")
    run = run_of("command", argv=["/usr/bin/env"], env={"COLOUR": "blue", "DUELINE_ATTEMPT": "forged"})
    command(run)
    environment = dict(line.split("=", 1) for line in capfd.readouterr().out.splitlines())
    assert environment == {
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "COLOUR": "blue",
        "DUELINE_RUN_ID": "job@1700000000000",
        "DUELINE_JOB_ID": "job",
        "DUELINE_ATTEMPT": "2",
        "DUELINE_DUE": "2023-11-14T22:13:20+00:00",
    }
    assert run.exit_status == 0


def test_a_program_has_an_empty_folder_that_is_removed_at_the_end(capfd: pytest.CaptureFixture[str]) -> None:
    run = run_of("command", argv=["/bin/sh", "-c", "pwd; ls -A; touch file"])
    command(run)
    (folder,) = capfd.readouterr().out.splitlines()
    assert Path(folder, "file").exists()
    run.at_end.close()
    assert not Path(folder).exists()


@pytest.mark.parametrize(("cwd", "place"), [("~", ""), ("~/inner", "inner"), (None, "inner")])
def test_a_program_may_run_in_a_folder_that_stays(
    cwd: str | None, place: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "inner").mkdir()
    where = cwd or str(tmp_path / place)
    run = run_of("command", argv=["/bin/pwd"], cwd=where, env={"HOME": str(tmp_path)})
    command(run)
    run.at_end.close()
    assert Path(capfd.readouterr().out.strip()) == tmp_path / place
    assert (tmp_path / place).is_dir()


def test_a_program_reads_its_input(capfd: pytest.CaptureFixture[str]) -> None:
    command(run_of("command", argv=["/bin/cat"], stdin="grün\n" * 100_000))
    assert capfd.readouterr().out == "grün\n" * 100_000


def test_no_shell_reads_the_arguments(capfd: pytest.CaptureFixture[str]) -> None:
    command(run_of("command", argv=["/bin/echo", "$HOME; exit 1"]))
    assert capfd.readouterr().out == "$HOME; exit 1\n"


@pytest.mark.parametrize(
    ("script", "exit_status", "message"),
    [
        ("exit 3", 3, "/bin/sh ended with exit status 3"),
        ("kill -SEGV $$", -11, "/bin/sh was ended by SIGSEGV"),
    ],
)
def test_a_program_that_fails_fails_the_attempt(script: str, exit_status: int, message: str) -> None:
    run = run_of("command", argv=["/bin/sh", "-c", script])
    with pytest.raises(Failed, match=message):
        command(run)
    assert run.exit_status == exit_status


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, r"params.argv: None must be the program and its arguments"),
        ({"argv": "date"}, r"params.argv: 'date' must be"),
        ({"argv": [1]}, r"params.argv: \[1\] must be"),
        (
            {"argv": ["/no/such/program"]},
            r"params.argv: can't start '/no/such/program': .*check the name and PATH",
        ),
        ({"argv": ["a\0b"]}, r"params.argv: can't start"),
        ({"argv": ["/bin/true"], "env": {"A": 1}}, r"params.env: .* must be an object of texts"),
        (
            {"argv": ["/bin/true"], "cwd": "here"},
            r"params.cwd: 'here' must be an absolute path, or begin with ~/",
        ),
        (
            {"argv": ["/bin/true"], "cwd": "/no/such"},
            r"params.cwd: there is no folder /no/such at the executor",
        ),
        ({"argv": ["/bin/true"], "stdin": 1}, r"params.stdin: 1 must be a text"),
        ({"argv": ["/bin/true"], "arg": []}, r"params.arg: is not known; did you mean argv\?"),
    ],
)
def test_a_wrong_parameter_of_command_is_named_with_its_remedy(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidJob, match=message):
        command(run_of("command", **params))


class Handler(BaseHTTPRequestHandler):
    """Answers with what it was asked; /status/<n> with that status, /to/<host> with a redirect there, /cut with less than it says."""

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        asked = {"method": self.command, "body": body, "headers": dict(self.headers)}
        place, _, what = self.path.rpartition("/")
        self.send_response(int(what) if place == "/status" else 302 if place == "/to" else 200)
        if place == "/to":
            self.send_header("Location", f"http://{what}:{self.connection.getsockname()[1]}/elsewhere")
        if what == "cut":
            self.send_header("Content-Length", "1000000")
        if self.path == "/status/302":
            self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(json.dumps(asked).encode())

    do_POST = do_PUT = do_GET

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_request_is_sent_as_asked_and_its_answer_kept(
    server: str, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # it is not for jobs
    run = run_of("http", method="PUT", url=f"{server}/a?b=c", headers={"X-Colour": "blue"}, body={"n": 1})
    assert http(run) == {"status": 200}
    answer = json.loads(capfdbinary.readouterr().out)
    assert (answer["method"], answer["body"]) == ("PUT", '{"n": 1}')
    assert answer["headers"].items() >= {"X-Colour": "blue", "Content-Type": "application/json"}.items()


@pytest.mark.parametrize(
    ("path", "params", "status"),
    [
        ("/status/204", {}, 204),
        ("/status/404", {"expected_status": 404}, 404),
        ("/status/302", {"expected_status": [301, 302]}, 302),
        ("/status/302", {"follow_redirects": True}, 200),
    ],
)
def test_an_expected_status_is_a_success(server: str, path: str, params: dict[str, Any], status: int) -> None:
    assert http(run_of("http", url=server + path, **params)) == {"status": status}


@pytest.mark.parametrize(
    ("path", "params", "message"),
    [
        ("/status/500", {}, "answered 500 Internal Server Error, not a 2xx"),
        ("/status/302", {}, "answered 302 Found, not a 2xx"),
        ("/", {"expected_status": [201, 202]}, "answered 200 OK, not 201 or 202"),
    ],
)
def test_another_status_fails_the_attempt(
    server: str, path: str, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(Failed, match=message):
        http(run_of("http", url=server + path, **params))


@pytest.mark.parametrize(("host", "kept"), [("127.0.0.1", True), ("localhost", False)])
def test_a_redirect_to_another_host_takes_no_credentials_there(
    server: str, capfdbinary: pytest.CaptureFixture[bytes], host: str, kept: bool
) -> None:
    headers = {"Authorization": "Bearer x", "cookie": "a=b", "X-Colour": "blue"}
    http(run_of("http", url=f"{server}/to/{host}", headers=headers, follow_redirects=True))
    found = json.loads(capfdbinary.readouterr().out)["headers"]
    assert found["X-Colour"] == "blue"
    assert ("Authorization" in found, "Cookie" in found) == (kept, kept)


def test_a_response_that_breaks_off_fails_the_attempt(server: str) -> None:
    with pytest.raises(Failed, match=r"the response broke off, and 99\d+ bytes are missing"):
        http(run_of("http", url=f"{server}/cut"))


def test_a_server_that_is_not_there_fails_the_attempt() -> None:
    with pytest.raises(Failed, match=r"GET http://127.0.0.1:1/ failed: .*refused"):
        http(run_of("http", url="http://127.0.0.1:1/"))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "params.url: '' must be an address"),
        ({"url": "http://[::1/"}, "params.url: 'http://[::1/' must be an address"),
        ({"url": "file:///etc/passwd"}, "params.url: 'file:///etc/passwd' must be an address"),
        ({"url": "http://a", "methd": "GET"}, "params.methd: is not known; did you mean method?"),
        ({"url": "http://a", "method": 1}, "params.method: 1 must be a text"),
        ({"url": "http://a", "headers": []}, "params.headers: "),
        ({"url": "http://a", "expected_status": "ok"}, "params.expected_status: 'ok' must be a status"),
        ({"url": "http://a", "follow_redirects": 1}, "params.follow_redirects: 1 must be true or false"),
    ],
)
def test_a_wrong_parameter_of_http_is_named_with_its_remedy(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidJob, match=re.escape(message)):
        http(run_of("http", **params))
