"""The page of results: for each benchmark what the rounds gave, with plots. Also `python -m tests.bench.page FOLDER`."""

import html
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench import plots

Line = Mapping[str, Any]

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 960px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; } td, th { padding: 2px 14px 2px 0; text-align: left; }
td + td { text-align: right; font-variant-numeric: tabular-nums; } svg { max-width: 100%; height: auto; }
"""
#: What tells one series of rounds from others of its benchmark.
_NAMES = [
    *("way", "beside", "waiting", "part", "trigger", "stored", "killed", "outage_s"),
    *("executors", "partitions", "view", "rate_per_s", "seconds"),
]
#: What stands in the file of results alone, or in a heading.
_NOT_SHOWN = {"bench", "round", "rounds", "spread", "series", "seed", *_NAMES}


def write_page(folder: Path, lines: Sequence[Line]) -> Path:
    """Write `index.html` beside the results."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "index.html"
    page.write_text("".join(_page(lines)), "utf-8")
    return page


def _page(lines: Sequence[Line]) -> Iterator[str]:
    yield f"<!doctype html><meta charset=utf-8><title>Dueline, measured</title><style>{_STYLE}</style>"
    yield "<h1>Dueline, measured</h1>"
    yield "<p>Medians of the rounds, with the least and the greatest of them.</p>"
    for line in lines:
        if line["bench"] == "machine":
            yield _table({name: [value] for name, value in _flat(line)})
    for bench in dict.fromkeys(line["bench"] for line in lines if line["bench"] != "machine"):
        yield from _section(bench, [line for line in lines if line["bench"] == bench])


def _section(bench: str, lines: Sequence[Line]) -> Iterator[str]:
    summaries = [line for line in lines if "round" not in line]
    yield f"<h2>{html.escape(bench)}</h2>"
    if not summaries:
        yield "<p>It was ended before its last round.</p>"
        return
    yield from _plots(summaries, lines)
    for line in summaries:
        spread = dict(_flat(line.get("spread", {})))
        rows = {name: [value, *spread.get(name, [])] for name, value in _flat(line)}
        yield f"<h3>{html.escape(_label(line))}</h3>{_table(rows)}"


def _plots(summaries: Sequence[Line], lines: Sequence[Line]) -> Iterator[str]:
    if rates := [line for line in summaries if "jobs_per_s" in line]:
        values = {"jobs": [line["jobs_per_s"] for line in rates]}
        yield plots.bars("Jobs a second", _labels(rates), values)
    for name, title in (
        ("lateness_ms", "Lateness, ms"),
        ("ack_ms", "Acknowledgement, ms"),
        ("view_ms", "Views, ms"),
    ):
        if shown := [line for line in summaries if name in line]:
            values = {quantile: [line[name].get(quantile) for line in shown] for quantile in ("p50", "p99")}
            yield plots.bars(title, _labels(shown), values)
    if used := [line for line in summaries if "cpu_us_per_job" in line]:
        parts = dict.fromkeys(part for line in used for part in line["cpu_us_per_job"])
        values = {part: [line["cpu_us_per_job"].get(part) for line in used] for part in parts}
        yield plots.stacks("CPU of a job, µs", _labels(used), values)
    for line in lines:
        if memory := line.get("series", {}).get("memory_mb"):
            title = f"Memory over the seconds, MB: {_label(line)}, round {line['round']}"
            yield plots.lines(title, line["series"]["at_s"], memory)


def _labels(lines: Sequence[Line]) -> Sequence[str]:
    return [_label(line) for line in lines]


def _label(line: Line) -> str:
    named = ((name.removesuffix("_s"), line[name]) for name in _NAMES if name in line)
    return ", ".join(f"{name} {_text(value)}" for name, value in named) or str(line["bench"])


def _flat(line: Line, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in line.items():
        if name in _NOT_SHOWN:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _table(rows: Mapping[str, Sequence[Any]]) -> str:
    cells = (
        f"<tr><td>{html.escape(name)}</td>{''.join(f'<td>{_text(value)}</td>' for value in values)}</tr>"
        for name, values in rows.items()
    )
    return f"<table>{''.join(cells)}</table>"


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else html.escape(str(value))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with (folder / "results.jsonl").open() as file:
        print(write_page(folder, [json.loads(line) for line in file]))
