from types import SimpleNamespace

import pytest
import torch

from leanconv.measure import Timing, interleaved, latency


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves by what the timed functions add to it, not by what the machine is busy with."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def lasting(clock, *milliseconds):
    """A function whose calls last so long, the last duration for good."""
    durations = list(milliseconds)

    def function():
        clock.now += (durations.pop(0) if len(durations) > 1 else durations[0]) / 1000

    return function


def test_samples_are_taken_by_turns_and_who_goes_first_rotates():
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "abc"}
    interleaved(functions, rounds=4, warmup=2, minimum_seconds=0)
    assert "".join(calls) == "aabbcc" + "abc" + "bca" + "cab" + "abc"


def test_a_sample_repeats_a_short_function_until_the_minimum(clock):
    calls = []
    short = lasting(clock, 50, 1)  # the first call of a function is often slow

    def counted():
        calls.append(None)
        short()

    timing = interleaved({"short": counted}, rounds=3, warmup=2, minimum_seconds=0.0195)["short"]
    assert len(calls) == 2 + 3 * 20
    assert timing.median_ms == pytest.approx(1.0)


def test_quartiles_show_the_spread(clock):
    function = lasting(clock, 1, 5, 3, 1, 9, 2)
    timing = interleaved({"wait": function}, rounds=5, warmup=1, minimum_seconds=0)["wait"]
    assert timing == Timing(*map(pytest.approx, (3.0, 2.0, 5.0)), rounds=5)


def test_each_function_gets_its_own_time(clock):
    functions = {"one": lasting(clock, 2), "three": lasting(clock, 6)}
    timings = interleaved(functions, rounds=5, warmup=1)
    assert list(timings) == ["one", "three"]
    assert timings["three"].median_ms / timings["one"].median_ms == pytest.approx(3.0)


def test_real_work_takes_real_time():
    small, large = torch.ones(16, 16), torch.ones(512, 512)  # 32768 times the multiplications
    timings = interleaved({"small": lambda: small @ small, "large": lambda: large @ large}, rounds=5)
    assert timings["large"].median_ms > 2 * timings["small"].median_ms > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"functions": {}}, "functions must name at least one function"),
        ({"functions": {"f": int}, "rounds": 0}, "rounds must be at least 1, got 0"),
        ({"functions": {"f": int}, "warmup": 0}, "warmup must be at least 1, got 0"),
    ],
)
def test_what_can_not_be_timed_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        interleaved(**arguments)
