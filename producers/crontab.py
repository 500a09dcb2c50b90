"""A crontab as named jobs of the executor class `command`.

It is read as cron reads it (crontab(5) of Debian, and what cronie and SUSE have besides): settings hold from their line on,
quotes around values are taken off and nothing is expanded, `%` ends a command and begins its input unless a backslash
stands before it. A command is run by the same shell in the home folder, with the settings as its environment.

Names. A job is called after its command, `cron/<some words of it>-<hash of it>`, and after its user in a system's format;
the second of one command in a file ends in `-2`. A comment on the line above names it otherwise:

    # dueline: nightly-report
    30 2 * * *  /opt/report

So the same file asks for the same jobs again, and nothing changes. Another time or another setting is a change of the
same job, another command a new job.

What differs from cron is told line by line, as far as a line asks for it: mail, other users, starts of the machine.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from dueline.errors import InvalidJob
from dueline.job import Job
from dueline.triggers import JITTER_MAX, Cron

SHELL = "/bin/sh"
PREFIX = "cron"
#: Characters of a command in its job's id: enough to know it by.
WORDS_LENGTH_MAX = 48
_BLANK = " \t"
_SETTING = re.compile(r"""(?:"([^"]*)"|'([^']*)'|([^\s="']+))\s*=\s*(.*?)\s*""")
_NAMED = re.compile(r"#+\s*dueline:\s*(\S+)\s*")
_COMMAND = re.compile(r"((?:[^\\%]|\\.|\\\Z)*)(?:%(.*))?", re.DOTALL)
_USER = re.compile(r"[A-Za-z_][\w.-]*\$?(:\S+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line that was taken over."""

    line: int
    job: Job
    #: The command as cron would give it to the shell.
    command: str

    @property
    def trigger(self) -> Cron:
        (trigger,) = self.job.triggers
        assert isinstance(trigger, Cron)
        return trigger


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """What cannot be taken over of a line, and why."""

    line: int
    text: str
    #: Whether the line made no job at all. Else it did, and differs from cron in this.
    left_out: bool


@dataclass(slots=True)
class Crontab:
    """A file, read."""

    entries: list[Entry] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)


class _LeftOut(Exception):
    """A line makes no job, for this reason."""


def read_crontab(
    data: bytes, *, system: bool = False, time_zone: str = "UTC", prefix: str = PREFIX
) -> Crontab:
    """The jobs of a crontab. `system`: it is of the system's format, with a user before each command.

    `time_zone` is that of the lines that stand below no CRON_TZ.
    """
    return _Reader(system, time_zone, prefix).read(data)


class _Reader:
    """What holds at a line: the settings above it, and the name that a comment gave."""

    def __init__(self, system: bool, time_zone: str, prefix: str) -> None:
        self._system = system
        self._time_zone = time_zone
        self._prefix = prefix
        self._settings: dict[str, str] = {}
        self._name: str | None = None
        self._ids: Counter[str] = Counter()
        self._found = Crontab()

    def read(self, data: bytes) -> Crontab:
        for number, raw in enumerate(data.split(b"\n"), 1):
            try:
                for text in self._read(number, raw):
                    self._found.remarks.append(Remark(line=number, text=text, left_out=False))
            except (InvalidJob, _LeftOut) as error:
                self._found.remarks.append(Remark(line=number, text=str(error), left_out=True))
        return self._found

    def _read(self, number: int, raw: bytes) -> Iterator[str]:
        """Takes in a line, and says what differs from cron."""
        try:
            line = raw.decode().rstrip("\r").lstrip(_BLANK)
        except UnicodeDecodeError:
            raise _LeftOut("is no UTF-8; convert the file, such as by iconv") from None
        if not line.strip():
            self._name = None
        elif line.startswith("#"):
            named = _NAMED.fullmatch(line)
            self._name = named[1] if named else None
        elif setting := _SETTING.fullmatch(line):
            yield from self._set(setting[1] or setting[2] or setting[3] or "", _unquoted(setting[4]))
        else:
            name, self._name = self._name, None
            yield from self._add(number, line, name)

    # -- settings --------------------------------------------------------------------------------------------------

    def _set(self, name: str, value: str) -> Iterator[str]:
        self._settings[name] = value
        if name in ("MAILTO", "MAILFROM") and value:
            yield "no mail is sent; `dueline output ID` shows what the latest run of a job wrote"
        if name == "TZ" and "CRON_TZ" not in self._settings:
            yield f"TZ is for the commands alone, as in cron; the times are in {self._time_zone}, or say CRON_TZ"
        if name == "RANDOM_DELAY" and self._jitter() is None:
            yield f"RANDOM_DELAY={value} is no number of minutes, at most those of a day, and is not heeded"

    def _jitter(self) -> timedelta | None:
        """What cronie calls a random delay. None if it is not to be understood."""
        minutes = self._settings.get("RANDOM_DELAY", "0")
        jitter = timedelta(minutes=int(minutes)) if re.fullmatch(r"[0-9]{1,4}", minutes) else None
        return jitter if jitter is not None and jitter <= JITTER_MAX else None

    # -- commands --------------------------------------------------------------------------------------------------

    def _add(self, number: int, line: str, name: str | None) -> Iterator[str]:
        expression, rest = _schedule(line)
        user, rest = self._user(rest) if self._system else ("", rest)
        command, stdin = _command(rest)
        _require_command(command, self._system)
        trigger = _cron(line, expression, self._settings.get("CRON_TZ") or self._time_zone, self._jitter())
        params: dict[str, object] = {
            "argv": [self._settings.get("SHELL") or SHELL, "-c", command],
            "cwd": "~",
        }
        if self._settings:
            params["env"] = dict(self._settings)
        if stdin:
            params["stdin"] = stdin
        job_id = name or self._id(user, rest)
        job = Job(id=job_id, executor_class="command", params=params, triggers=(trigger,))
        same = next((entry.line for entry in self._found.entries if entry.job.id == job.id), None)
        if same:
            raise _LeftOut(f"has the name of line {same}, {job.id}; give it one of its own")
        self._found.entries.append(Entry(line=number, job=job, command=command))
        if user:
            yield f"runs as the user of the executor, whoever that is, and not as {user}"

    def _user(self, rest: str) -> tuple[str, str]:
        user, _, rest = _partition(rest)
        if not _USER.fullmatch(user):
            raise _LeftOut(
                f"{user!r} is no user, which a system's crontab has before the command; leave out --system?"
            )
        return user, rest

    def _id(self, user: str, command: str) -> str:
        whole = " ".join(command.split())
        words = re.sub(r"[^A-Za-z0-9.]+", "-", whole).strip("-.")[:WORDS_LENGTH_MAX].strip("-.")
        digest = hashlib.blake2b(f"{user}\n{whole}".encode(), digest_size=4).hexdigest()
        name = "/".join(filter(None, (self._prefix, f"{words or 'command'}-{digest}")))
        self._ids[name] += 1
        return name if self._ids[name] == 1 else f"{name}-{self._ids[name]}"


def _schedule(line: str) -> tuple[str, str]:
    """The expression of a line, and what stands behind it."""
    if line.startswith("@"):
        word, _, rest = _partition(line)
        if word == "@reboot":
            raise _LeftOut(
                "@reboot: a scheduler of many machines knows no start of one; make it a service of that machine"
            )
        return word, rest
    fields: list[str] = []
    # SUSE's cron writes no log for lines that begin with a minus.
    rest = line.removeprefix("-")
    while rest and len(fields) < 5:
        first, _, rest = _partition(rest)
        fields.append(first)
    if len(fields) < 5:
        raise _LeftOut(f"is neither a setting (NAME=value) nor five fields and a command: {line!r:.80}")
    return " ".join(fields), rest


def _command(rest: str) -> tuple[str, str]:
    """A command and its input, parted by the first `%` without a backslash; further ones are ends of lines."""
    found = _COMMAND.fullmatch(rest)
    assert found is not None
    command, stdin = found[1].replace("\\%", "%"), found[2] or ""
    stdin = re.sub(r"\\%|%", lambda sign: "%" if sign[0] == "\\%" else "\n", stdin)
    return command, stdin if not stdin or stdin.endswith("\n") else stdin + "\n"


def _require_command(command: str, system: bool) -> None:
    if not command.strip():
        raise _LeftOut("has no command")
    first, _, _ = _partition(command)
    if not system and first == "root":
        raise _LeftOut("begins with the user root, as in a system's crontab; give --system")
    if first.isdecimal():
        raise _LeftOut(f"{first!r} is no command; anacron's tables (period, delay, name) are not read")


def _cron(line: str, expression: str, zone: str, jitter: timedelta | None) -> Cron:
    try:
        return Cron(expression, zone, jitter=jitter or timedelta(0))
    except InvalidJob as error:
        if error.field != "trigger.cron":
            raise
        period = re.match(r"\d+\s+\d+\s+[\w.-]*[a-z][\w.-]*\s", line)
        remedy = "; anacron's tables (period, delay, name) are not read" if period else ""
        raise _LeftOut(error.problem + remedy) from None


def _partition(text: str) -> tuple[str, str, str]:
    """The first word, the blank behind it, and the rest."""
    found = re.match(r"([^ \t]*)([ \t]*)(.*)", text, re.DOTALL)
    assert found is not None
    return found[1], found[2], found[3]


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value
