"""The example of the README that needs no platform prints what stands below it."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_example_of_a_trigger(capsys: pytest.CaptureFixture[str]) -> None:
    code, printed = re.findall(r"```python\n(from datetime [^`]*next_due[^`]*)```\n\n    (.*)\n", README)[0]
    exec(code, {})
    assert capsys.readouterr().out.strip() == printed
