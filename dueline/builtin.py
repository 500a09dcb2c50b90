"""The executor classes that every executor has: `command` runs a program, `http` sends a request.

Both take nothing from the executor's surroundings but what is named here, and leave no file behind.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from dueline.errors import InvalidJob
from dueline.processes import signal_name
from dueline.registry import Failed, Run, TimedOut, executor_class

#: What a program gets to end after SIGTERM. The guard kills the slot itself after 2 s, and its output with it.
_GRACE_S = 1.5
_CHUNK = 1 << 16


@executor_class("command")
def command(run: Run) -> None:
    """Runs a program: `argv` (no shell), `env` (added to a minimal environment), `stdin` (a text), `cwd` (where it runs, an
    absolute path or one in the home folder, `~`; else an empty folder of its own)."""
    _check_names(run.params, "argv", "env", "stdin", "cwd")
    argv, stdin = _argv(run.params), _text(run.params, "stdin", "")
    environment = _environment(run, _texts(run.params, "env"))
    folder = _folder(run, environment["HOME"])
    with _input(stdin) as source:
        try:
            process = subprocess.Popen(
                argv, env=environment, cwd=folder, stdin=source, start_new_session=True
            )
        except (OSError, ValueError) as error:
            raise InvalidJob(
                "params.argv", f"can't start {argv[0]!r}: {error}; check the name and PATH"
            ) from None
    try:
        run.exit_status = process.wait()
    except TimedOut:
        run.exit_status = _ended(process)
        raise
    if run.exit_status < 0:
        raise Failed(f"{argv[0]} was ended by {signal_name(-run.exit_status)}")
    if run.exit_status:
        raise Failed(f"{argv[0]} ended with exit status {run.exit_status}")


@executor_class("http")
def http(run: Run) -> dict[str, int]:
    """Sends a request: `method`, `url`, `headers`, `body` (a text, or a value sent as JSON), `expected_status` (any
    2xx unless given, a number or a list of them), `follow_redirects`. The response's body is the run's output."""
    _check_names(run.params, "method", "url", "headers", "body", "expected_status", "follow_redirects")
    request, expected = _request(run.params), _expected_status(run.params)
    follow = run.params.get("follow_redirects", False)
    if not isinstance(follow, bool):
        raise InvalidJob("params.follow_redirects", f"{follow!r} must be true or false")
    # An explicit empty ProxyHandler: the default one takes proxies from the executor's environment.
    opener = build_opener(ProxyHandler({}), _Redirect if follow else _NoRedirect)
    try:
        try:
            response = opener.open(request, timeout=run.timeout.total_seconds())
        except HTTPError as error:
            response = error  # a status that urllib thinks of as an error; here `expected` decides
        with response:
            shutil.copyfileobj(response, sys.stdout.buffer, _CHUNK)
            if missing := getattr(response, "length", None):  # copied in pieces, it does not say so itself
                raise HTTPException(f"the response broke off, and {missing} bytes are missing")
    except (URLError, OSError, HTTPException, ValueError) as error:
        cause = getattr(error, "reason", None) or repr(error)
        raise Failed(f"{request.method} {request.full_url} failed: {cause}") from None
    if response.status not in expected:
        wanted = "a 2xx" if expected == _ANY_2XX else " or ".join(map(str, expected))
        raise Failed(
            f"{request.method} {request.full_url} answered {response.status} {response.reason}, not {wanted}"
        )
    return {"status": response.status}


_ANY_2XX = range(200, 300)


class _Redirect(HTTPRedirectHandler):
    """What is meant for one server alone goes to no other."""

    def redirect_request(self, req: Request, *args: Any) -> Request | None:
        following = super().redirect_request(req, *args)
        if following is not None and _origin(following) != _origin(req):
            for name in ("Authorization", "Cookie", "Proxy-authorization"):
                following.remove_header(name)
        return following


def _origin(request: Request) -> tuple[str, str]:
    return request.type, request.host


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        return None


def _environment(run: Run, added: Mapping[str, str]) -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.environ.get("HOME", "/"),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        **added,
        "DUELINE_RUN_ID": run.run_id,
        "DUELINE_JOB_ID": run.job_id,
        "DUELINE_ATTEMPT": str(run.attempt),
        "DUELINE_DUE": run.due.isoformat(),
    }


def _folder(run: Run, home: str) -> Path:
    cwd = _text(run.params, "cwd", "")
    if not cwd:
        # Removed when the program's whole family is dead, or what is left of it could write on.
        own = tempfile.mkdtemp(prefix="dueline-")
        run.at_end.callback(shutil.rmtree, own, ignore_errors=True)
        return Path(own)
    folder = Path(home + cwd[1:] if cwd == "~" or cwd.startswith("~/") else cwd)
    if not folder.is_absolute():
        raise InvalidJob("params.cwd", f"{cwd!r} must be an absolute path, or begin with ~/")
    if not folder.is_dir():
        raise InvalidJob(
            "params.cwd", f"there is no folder {folder} at the executor; make it there, or name another"
        )
    return folder


def _ended(process: subprocess.Popen[bytes]) -> int | None:
    """The exit status of a program that is asked to end; None if it doesn't."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        return process.wait(_GRACE_S)
    return None


@contextmanager
def _input(text: str) -> Iterator[IO[bytes] | int]:
    """A file to read the text from: unlike a pipe, it asks nobody to write while the program runs."""
    if not text:
        yield subprocess.DEVNULL
        return
    with tempfile.TemporaryFile() as file:
        file.write(text.encode())
        file.seek(0)
        yield file


def _request(params: Mapping[str, Any]) -> Request:
    method, url = _text(params, "method", "GET"), _text(params, "url", "")
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:  # an IPv6 address that does not end
        good = False
    if not good:
        raise InvalidJob("params.url", f"{url!r} must be an address such as https://example.org/path")
    headers = {"User-Agent": "dueline", **_texts(params, "headers")}
    body = params.get("body")
    if body is not None and not isinstance(body, str):
        body = json.dumps(body)
        headers = {"Content-Type": "application/json", **headers}
    try:
        return Request(url, None if body is None else body.encode(), headers, method=method)
    except ValueError as error:
        raise InvalidJob("params.url", str(error)) from None


def _expected_status(params: Mapping[str, Any]) -> range | list[int]:
    expected = params.get("expected_status")
    if expected is None:
        return _ANY_2XX
    numbers = expected if isinstance(expected, list) else [expected]
    if not numbers or not all(isinstance(number, int) and 100 <= number <= 599 for number in numbers):
        raise InvalidJob(
            "params.expected_status", f"{expected!r} must be a status such as 204, or a list of them"
        )
    return numbers


def _argv(params: Mapping[str, Any]) -> list[str]:
    argv = params.get("argv")
    if (
        not isinstance(argv, list)
        or not argv
        or not all(isinstance(word, str) for word in argv)
        or not argv[0]
    ):
        raise InvalidJob(
            "params.argv",
            f'{argv!r:.80} must be the program and its arguments, such as ["/bin/echo", "hello"]',
        )
    return argv


def _text(params: Mapping[str, Any], name: str, default: str) -> str:
    text = params.get(name, default)
    if not isinstance(text, str):
        raise InvalidJob(f"params.{name}", f"{text!r:.80} must be a text")
    return text


def _texts(params: Mapping[str, Any], name: str) -> dict[str, str]:
    texts = params.get(name, {})
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise InvalidJob(
            f"params.{name}", f'{texts!r:.80} must be an object of texts, such as {{"NAME": "value"}}'
        )
    return texts


def _check_names(params: Mapping[str, Any], *known: str) -> None:
    for name in params:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise InvalidJob(f"params.{name}", f"is not known; {hint}")
