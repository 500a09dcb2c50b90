"""Crontabs of real life, as jobs."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click import UsageError
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from dueline.builtin import command
from dueline.codec import encode_job
from dueline.job import Job
from dueline.json_form import job_from_json
from dueline.registry import Run
from dueline.triggers import Cron
from producers.cli import main
from producers.cli.crontab import local_zone
from producers.crontab import Crontab, read_crontab
from tests.producers.fake_client import FakeClient

CRONTABS = Path(__file__).parent / "crontabs"


def read(name: str, **options: Any) -> Crontab:
    return read_crontab((CRONTABS / name).read_bytes(), **options)


def only(text: str, **options: Any) -> Job:
    """The job of a text that has one, and nothing to remark."""
    found = read_crontab(text.encode(), **options)
    assert not found.remarks
    (entry,) = found.entries
    return entry.job


def left_out(text: str, **options: Any) -> str:
    """Why a line makes no job."""
    found = read_crontab(text.encode(), **options)
    (remark,) = found.remarks
    assert remark.left_out
    assert not found.entries
    return remark.text


# -- files of real life ------------------------------------------------------------------------------------------------


def test_the_crontab_of_debian() -> None:
    found = read("debian", system=True, time_zone="Europe/Berlin")
    assert [entry.line for entry in found.entries] == [18, 19, 20, 21]
    hourly, _, weekly, _ = (entry.job for entry in found.entries)
    assert hourly == Job(
        id="cron/cd-run-parts-report-etc-cron.hourly-7c7a15c2",
        executor_class="command",
        params={
            "argv": ["/bin/sh", "-c", "cd / && run-parts --report /etc/cron.hourly"],
            "cwd": "~",
            "env": {
                "SHELL": "/bin/sh",
                "PATH": "/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin",
            },
        },
        triggers=(Cron("17 * * * *", "Europe/Berlin"),),
    )
    assert weekly.triggers == (Cron("47 6 * * 7", "Europe/Berlin"),)
    assert [(remark.line, remark.left_out) for remark in found.remarks] == [
        (n, False) for n in (18, 19, 20, 21)
    ]
    assert found.remarks[0].text == "runs as the user of the executor, whoever that is, and not as root"


def test_the_crontab_of_suse() -> None:
    found = read("suse", system=True)
    assert [entry.trigger.expression for entry in found.entries] == [
        "*/15 * * * *",
        "59 * * * *",
        "14 4 * * *",
    ]
    assert all(entry.job.params["argv"][0] == "/bin/bash" for entry in found.entries)
    assert found.remarks[0].line == 3
    assert "no mail is sent" in found.remarks[0].text


def test_fragments_of_cron_d() -> None:
    found = read("cron.d", system=True)
    assert [entry.line for entry in found.entries] == [5, 6, 8]
    assert found.entries[1].command.startswith("test -e /run/systemd/system || SERVICE_MODE=1 /usr/lib")
    assert [(r.line, r.text) for r in found.remarks if r.left_out] == [
        (7, "@reboot: a scheduler of many machines knows no start of one; make it a service of that machine")
    ]


@pytest.mark.parametrize("system", [True, False])
def test_the_table_of_anacron_is_another_thing(system: bool) -> None:
    found = read("anacron", system=system)
    assert not found.entries
    assert [remark.line for remark in found.remarks if remark.left_out] == [7, 8, 9]
    assert all("anacron's tables" in r.text or "is no user" in r.text for r in found.remarks if r.left_out)


def test_the_crontab_of_a_user() -> None:
    found = read("user", time_zone="Europe/Berlin")
    jobs = {entry.line: entry.job for entry in found.entries}
    env = {"MAILTO": "ops@example.org", "HOME": "/srv/app", "PATH": "$HOME/bin:/usr/bin:/bin"}
    assert jobs[6].params["argv"][2].rstrip() == "tar -zcf /var/backups/home.tgz /home/"
    assert jobs[6].params["env"] == env  # nothing is expanded, as in cron
    assert jobs[7].params["argv"][2] == '~/bin/poll --since "$(date +%F)"'
    assert jobs[7].triggers == (Cron("*/10 * * * MON-FRI", "Europe/Berlin"),)
    assert jobs[9].id == "nightly-report"
    new_york: dict[str, Any] = {"time_zone": "America/New_York", "jitter": timedelta(minutes=15)}
    assert jobs[14].triggers == (Cron("0 16 * * 1-5", **new_york),)
    assert jobs[14].params["argv"][2] == 'mail -s "close" trader'
    assert jobs[14].params["stdin"] == "Markets close now.\n\nRegards, 100% cron\n"
    assert jobs[16].triggers == (Cron("@daily", **new_york),)
    assert (jobs[15].id or "") + "-2" == jobs[16].id
    assert list(jobs) == [6, 7, 9, 14, 15, 16, 17]
    assert [(remark.line, remark.left_out) for remark in found.remarks] == [
        (2, False),
        (18, True),
        (19, True),
        (20, True),
        (21, True),
        (23, True),
    ]


# -- the format --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ("A=b", {"A": "b"}),
        ("A = b c ", {"A": "b c"}),
        ('A="  b  "', {"A": "  b  "}),
        ("'A'='b'", {"A": "b"}),
        ("A=", {"A": ""}),
        ("A='b", {"A": "'b"}),
        ("A=b # no comment", {"A": "b # no comment"}),
        ("\tA=b=c", {"A": "b=c"}),
    ],
)
def test_settings(line: str, given: dict[str, str]) -> None:
    assert only(f"{line}\n@daily true\n").params["env"] == given


def test_settings_hold_from_their_line_on() -> None:
    found = read_crontab(b"@daily a\nSHELL=/bin/zsh\n@daily b\nSHELL=\n@daily c\n")
    assert [entry.job.params["argv"][0] for entry in found.entries] == ["/bin/sh", "/bin/zsh", "/bin/sh"]


@pytest.mark.parametrize(
    ("written", "shell_gets", "stdin"),
    [
        ("echo a", "echo a", None),
        ("date +\\%F", "date +%F", None),
        ("cat%a%b", "cat", "a\nb\n"),
        ("cat%", "cat", None),
        ("cat%%", "cat", "\n"),
        ("cat%100\\%%", "cat", "100%\n"),
        ("a\\\\%b", "a\\\\", "b\n"),
        ("a \\n b", "a \\n b", None),
        ("a\\", "a\\", None),
        ("a=b c", "a=b c", None),
        ("echo  two   blanks", "echo  two   blanks", None),
        ("echo # hash", "echo # hash", None),
    ],
)
def test_the_percent_sign(written: str, shell_gets: str, stdin: str | None) -> None:
    params = only(f"* * * * * {written}").params
    assert params["argv"] == ["/bin/sh", "-c", shell_gets]
    assert params.get("stdin") == stdin


@pytest.mark.parametrize(
    ("line", "expression"),
    [
        ("  1\t2  3 4\t 5\t true", "1 2 3 4 5"),
        ("@hourly true", "@hourly"),
        ("@midnight\ttrue\r", "@midnight"),
        ("0 0 1-7 * */7 true", "0 0 1-7 * */7"),
        ("-0 4 * jan,JUL sun true", "0 4 * jan,JUL sun"),
    ],
)
def test_schedules(line: str, expression: str) -> None:
    job = only(line)
    assert job.triggers == (Cron(expression),)
    assert job.params["argv"][2] == "true"


@pytest.mark.parametrize(
    ("line", "system", "says"),
    [
        ("@reboot true", False, "@reboot: a scheduler of many machines"),
        ("@fortnightly true", False, "'@fortnightly' is not one of @yearly"),
        ("* * * *", False, "neither a setting (NAME=value) nor five fields and a command: '* * * *'"),
        ("* * * * *", False, "has no command"),
        ("@daily", False, "has no command"),
        ("@daily   %x", False, "has no command"),
        ("*/5 25 * * * true", False, "'25' is no hour; give 0 to 23"),
        ("0~30 * * * * true", False, "a random or hashed field"),
        ("17 * * * * root run-parts /etc/cron.hourly", False, "as in a system's crontab; give --system"),
        ("17 * * * * /usr/bin/backup now", True, "'/usr/bin/backup' is no user"),
        ("17 * * * * root", True, "has no command"),
        ("# dueline: two/\u00fc\n@daily true", False, "id: 'two/ü' must be 1 to 200 letters"),
        ("CRON_TZ=Nowhere\n@daily true", False, "'Nowhere' is not an IANA time zone"),
    ],
)
def test_what_makes_no_job_says_why(line: str, system: bool, says: str) -> None:
    assert says in left_out(line, system=system)


def test_a_line_of_another_encoding_is_told_and_the_others_are_taken() -> None:
    found = read_crontab("@daily echo grün\n".encode("latin-1") + b"@daily true\n")
    assert [(remark.line, remark.text) for remark in found.remarks] == [
        (1, "is no UTF-8; convert the file, such as by iconv")
    ]
    assert [entry.line for entry in found.entries] == [2]


# -- names -------------------------------------------------------------------------------------------------------------


def test_a_name_stays_when_the_rest_of_the_line_or_file_changes() -> None:
    name = only("5 4 * * * /opt/a --b").id
    assert only("@hourly  /opt/a   --b ").id == name
    assert only("A=b\n# comment\n\n5 4 * * * /opt/a --b", time_zone="Asia/Tokyo").id == name
    assert only("5 4 * * * /opt/a --c").id != name
    assert only("5 4 * * * /opt/a%--b").id != name


def test_the_user_is_part_of_the_name() -> None:
    ids = [entry.job.id for entry in read_crontab(b"@daily a true\n@daily b true", system=True).entries]
    assert len(set(ids)) == 2


def test_a_prefix_tells_files_apart() -> None:
    assert (only("@daily true", prefix="cron/web-1").id or "").startswith("cron/web-1/true-")
    assert (only("@daily true", prefix="").id or "").startswith("true-")


@pytest.mark.parametrize("between", ["", "A=b\n"])
def test_a_comment_on_the_line_above_gives_a_name(between: str) -> None:
    assert only(f"# dueline: nightly\n{between}@daily true").id == "nightly"


@pytest.mark.parametrize("between", ["\n", "# another comment\n", "@reboot first\n"])
def test_a_comment_further_up_does_not(between: str) -> None:
    found = read_crontab(f"# dueline: nightly\n{between}@daily true".encode())
    assert found.entries[0].job.id != "nightly"


def test_a_name_that_is_given_twice_is_told() -> None:
    found = read_crontab(b"# dueline: a\n@daily x\n# dueline: a\n@daily y\n")
    assert [(r.line, r.text) for r in found.remarks] == [
        (4, "has the name of line 2, a; give it one of its own")
    ]


lines = st.sampled_from(
    (
        "@daily true",
        "@daily true",
        "0 1 * * * a%b",
        "# dueline: n",
        "A=b",
        "",
        "# x",
        "* * * * *",
        "x",
        "\t",
        "@reboot a",
    )
)


@given(st.lists(lines, max_size=12).map("\n".join).map(str.encode) | st.binary(max_size=60), st.booleans())
@settings(max_examples=300)
def test_no_line_is_lost_and_no_name_taken_twice(data: bytes, system: bool) -> None:
    found = read_crontab(data, system=system)
    told = {remark.line for remark in found.remarks if remark.left_out}
    taken = {entry.line for entry in found.entries}
    assert not told & taken
    for number, line in enumerate(data.split(b"\n"), 1):
        text = line.decode("utf-8", "replace").lstrip(" \t").rstrip("\r")
        if text.strip() and not text.startswith("#") and "=" not in text:
            assert number in told | taken
    assert len({entry.job.id for entry in found.entries}) == len(taken)
    again = read_crontab(data, system=system)
    assert [encode_job(entry.job) for entry in again.entries] == [
        encode_job(entry.job) for entry in found.entries
    ]


# -- performed ---------------------------------------------------------------------------------------------------------


def test_a_line_is_performed_as_cron_would(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = f'HOME={tmp_path}\nNAME="two words"\n* * * * * pwd; echo "$NAME 100\\%"; cat%first%second\n'
    run = Run(
        run_id="job@0",
        job_id="job",
        executor_class="command",
        attempt=1,
        due=datetime(2027, 1, 1, tzinfo=UTC),
        params=only(text).params,
        timeout=timedelta(seconds=10),
        deadline=datetime.now(UTC) + timedelta(seconds=10),
    )
    command(run)
    assert capfd.readouterr().out == f"{tmp_path}\ntwo words 100%\nfirst\nsecond\n"


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> type[FakeClient]:
    monkeypatch.setattr("producers.cli.crontab.Client", FakeClient)
    monkeypatch.setattr(FakeClient, "jobs", [])
    return FakeClient


def run_import(*arguments: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(main, ["crontab", "import", *arguments], input=typed)


def test_an_import_prints_the_ids_and_again_asks_for_the_same(client: type[FakeClient]) -> None:
    arguments = ("--system", "--time-zone", "Europe/Berlin", str(CRONTABS / "debian"))
    first = run_import(*arguments)
    assert first.exit_code == 0
    assert first.stdout.split() == [job.id for job in client.jobs]
    assert first.stderr.splitlines()[-1].startswith(
        "4 jobs submitted, 0 lines left out; times are in Europe/Berlin"
    )
    asked_for = [encode_job(job) for job in client.jobs]
    client.jobs.clear()
    assert run_import(*arguments).stdout == first.stdout
    assert [encode_job(job) for job in client.jobs] == asked_for


def test_what_is_left_out_is_told_by_line_and_by_the_exit_status(client: type[FakeClient]) -> None:
    result = run_import("-", typed="@reboot a\n@daily b\nMAILTO=x\n0 0 31 2 * c\n")
    assert result.exit_code == 1
    assert len(client.jobs) == 1
    starts = (
        "stdin:1: left out: @reboot",
        "stdin:3: note: no mail is sent",
        "stdin:4: left out: trigger.cron: '0 0 31 2 *' is never due",
        "1 jobs submitted, 2 lines left out",
    )
    for line, start in zip(result.stderr.splitlines(), starts, strict=True):
        assert line.startswith(start)


def test_a_dry_run_shows_all_and_submits_nothing(client: type[FakeClient]) -> None:
    result = run_import("--dry-run", "--time-zone", "Asia/Tokyo", "-", typed="0 2 * * * /opt/report --all\n")
    assert result.exit_code == 0
    assert not client.jobs
    assert result.stdout.split() == [
        *(only("@daily /opt/report --all").id or "").split(),
        *("0", "2", "*", "*", "*", "Asia/Tokyo", "/opt/report", "--all"),
    ]


def test_json_is_what_submit_takes(client: type[FakeClient]) -> None:
    result = run_import("--json", "--time-zone", "Asia/Tokyo", str(CRONTABS / "user"))
    assert not client.jobs
    jobs = [job_from_json(json.loads(line)) for line in result.stdout.splitlines()]
    expected = [entry.job for entry in read("user", time_zone="Asia/Tokyo").entries if entry.line != 17]
    assert jobs == expected


def test_a_wrong_time_zone_is_one_line() -> None:
    result = run_import("--time-zone", "Mars", "-", typed="")
    assert result.exit_code == 1
    assert result.stderr == "dueline: --time-zone: 'Mars' is not an IANA time zone, such as Europe/Berlin\n"


def test_the_time_zone_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TZ", "")
    link = tmp_path / "localtime"
    link.symlink_to("/usr/share/zoneinfo/Europe/Paris")
    monkeypatch.setattr("producers.cli.crontab.LOCALTIME", link)
    assert local_zone() == "Europe/Paris"
    monkeypatch.setenv("TZ", "America/New_York")  # a user's own, perhaps
    with pytest.raises(UsageError, match=r"TZ says America/New_York and .* Europe/Paris: give --time-zone"):
        local_zone()
    monkeypatch.setenv("TZ", ":/etc/localtime")
    assert local_zone() == "Europe/Paris"
    copy, name = tmp_path / "copy", tmp_path / "timezone"
    copy.write_bytes(link.read_bytes())
    monkeypatch.setattr("producers.cli.crontab.LOCALTIME", copy)
    monkeypatch.setattr("producers.cli.crontab.ZONE_NAME", name)
    with pytest.raises(UsageError, match="give --time-zone"):
        local_zone()
    name.write_text("Europe/Rome\n")
    assert local_zone() == "Europe/Rome"
    monkeypatch.setattr("producers.cli.crontab.LOCALTIME", tmp_path / "not there")
    assert local_zone() == "UTC"
    monkeypatch.setenv("TZ", ":America/New_York")
    assert local_zone() == "America/New_York"
