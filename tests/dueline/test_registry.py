"""The names under which code performs runs."""

import pytest

from dueline.registry import DuplicateExecutorClass, Failed, Run, executor_class, find, registered


@executor_class("test-registry")
def first(run: Run) -> None:
    pass


def second(run: Run) -> None:
    pass


def test_a_registered_function_is_found_and_stays_a_function() -> None:
    assert find("test-registry") is first
    assert "test-registry" in registered()
    assert executor_class("test-registry")(first) is first  # a module that is loaded again


def test_two_functions_can_not_share_a_name() -> None:
    with pytest.raises(DuplicateExecutorClass, match=r"'test-registry' is both .*first and .*second; rename"):
        executor_class("test-registry")(second)


def test_the_decorator_needs_a_name() -> None:
    with pytest.raises(TypeError, match="needs a name"):
        executor_class(second)  # type: ignore[arg-type]


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(Failed, match=r"no executor class 'nope'; it has .*test-registry"):
        find("nope")
