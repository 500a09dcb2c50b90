"""The brokers' time bounds the machine's, and nothing else moves it."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from stream_processors.scheduler.broker_clock import ALLOWED_AHEAD_MS, BrokerClock


class Machine:
    """A clock that can be set, beside one that cannot."""

    def __init__(self, now_ms: int) -> None:
        self.wall_ms = now_ms
        self.running_ms = 5_000_000

    def now_ms(self) -> int:
        return self.wall_ms

    def elapsed_s(self) -> float:
        return self.running_ms / 1000

    def pass_time(self, ms: int) -> None:
        self.wall_ms += ms
        self.running_ms += ms


def test_it_stands_at_the_epoch_until_the_brokers_are_heard() -> None:
    machine = Machine(1_000_000)
    clock = BrokerClock(machine)
    assert clock.now_ms() == 0
    clock.heard(1_000_000)
    assert clock.now_ms() == 1_000_000


async def test_who_waits_for_the_brokers_is_woken() -> None:
    clock = BrokerClock(Machine(0))
    waiting = asyncio.create_task(clock.known())
    await asyncio.sleep(0)
    assert not waiting.done()
    clock.heard(1)
    await waiting


def test_a_machine_that_is_ahead_is_held_back_and_goes_on() -> None:
    machine = Machine(1_000_000 + 3_600_000)
    clock = BrokerClock(machine)
    clock.heard(1_000_000)
    assert clock.now_ms() == 1_000_000 + ALLOWED_AHEAD_MS
    machine.pass_time(250)
    assert clock.now_ms() == 1_000_250 + ALLOWED_AHEAD_MS


def test_a_machine_that_is_behind_keeps_its_own_time() -> None:
    machine = Machine(1_000_000 - 3_600_000 + 3_600_000 - 500)
    clock = BrokerClock(machine)
    clock.heard(1_000_000)
    assert clock.now_ms() == 999_500


def test_an_old_stamp_does_not_set_it_back() -> None:
    machine = Machine(2_000_000)
    clock = BrokerClock(machine)
    clock.heard(1_000_000)
    clock.heard(900_000)
    assert clock.now_ms() == 1_000_000 + ALLOWED_AHEAD_MS


@given(
    offset_ms=st.integers(-10_000, 10_000),
    events=st.lists(
        st.tuples(
            st.sampled_from(["time", "set", "heard"]), st.integers(-10_000, 10_000), st.integers(0, 5_000)
        )
    ),
)
def test_it_is_never_more_than_a_second_ahead_of_the_brokers(
    offset_ms: int, events: list[tuple[str, int, int]]
) -> None:
    brokers_ms = 10_000_000
    machine = Machine(brokers_ms + offset_ms)
    clock = BrokerClock(machine)
    for kind, by_ms, delay_ms in events:
        if kind == "time":
            machine.pass_time(abs(by_ms))
            brokers_ms += abs(by_ms)
        elif kind == "set":
            machine.wall_ms += by_ms
        else:
            clock.heard(brokers_ms - delay_ms)  # the acknowledgement took a while
        assert clock.now_ms() <= brokers_ms + ALLOWED_AHEAD_MS
        assert clock.now_ms() <= machine.now_ms()
