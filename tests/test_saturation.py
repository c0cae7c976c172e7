"""The verdict on saturation: on made-up traces whose answer is known, and in real runs."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations, permutations

import pytest

from job.config.settings import Settings
from job.evaluation.saturation import (
    CHANCE_LOSS,
    Detector,
    Reading,
    _chance_of_so_few,
    _slope_and_trend,
    judge,
    windows_needed,
)

SETTINGS = Settings()
AT_REST = Reading(
    step=0,
    reconstruction_bce=0.2,
    discriminator_loss=CHANCE_LOSS,
    d_accuracy=0.5,
    d_prior=0.5,
    d_code=0.5,
    energy_distance=0.001,
    energy_distance_q99=0.0035,
    c2st_accuracy=0.5,
    smallest_eigenvalue=0.95,
)
NUM_WINDOWS = 120


@dataclass(frozen=True)
class Trace:
    """A made-up run, a reading a window: the reconstruction falls exponentially to rest, or for ever at a constant rate.

    `noise` is what a held-out loss jumps from window to window, as a share of it: 0.0005 to 0.0008 at the lecture's rates
    and with averaged weights, 0.006 at ten times these rates (measured on `digits`). `rate` is the fall over ten windows
    that never ends, as a share. The codes match and the discriminator ceases to tell from a window on.
    """

    fall: float
    decay_windows: float
    noise: float
    rate: float
    matches_from: int
    seed: int

    @classmethod
    def at_random(cls, seed: int, *, plateau: bool) -> "Trace":
        draw = random.Random(seed)
        noise = 10 ** draw.uniform(-3.5, -2.7)  # 0.0003 to 0.002
        return cls(
            fall=draw.uniform(0.05, 0.6),
            decay_windows=draw.uniform(2, 10),
            noise=noise,
            rate=0.0 if plateau else draw.uniform(0.01, 0.05),
            matches_from=draw.randrange(0, 30),
            seed=seed,
        )

    def readings(self, *, noisy: bool) -> list[Reading]:
        draw = random.Random(self.seed + 1)
        return [self._reading(t, draw if noisy else None) for t in range(1, NUM_WINDOWS + 1)]

    def _reading(self, t: int, draw: random.Random | None) -> Reading:
        def jitter(scale: float) -> float:
            return draw.gauss(0, scale) if draw is not None else 0.0

        loss = 0.2 * (1 + self.fall * math.exp(-t / self.decay_windows)) * (1 - self.rate) ** (t / 10)
        left = math.exp(-max(0, t - self.matches_from) / 2) if t > self.matches_from else 1.0
        return replace(
            AT_REST,
            step=100 * t,
            reconstruction_bce=loss * (1 + jitter(self.noise)),
            discriminator_loss=CHANCE_LOSS - 0.3 * left + jitter(0.004),
            d_accuracy=0.51 + 0.2 * left + jitter(0.006),
            d_prior=0.5 + 0.2 * left + jitter(0.006),
            d_code=0.5 - 0.2 * left + jitter(0.006),
            energy_distance=0.0005 + 0.3 * left + jitter(0.0006),
            c2st_accuracy=0.505 + 0.3 * left + jitter(0.01),
        )

    def rests_from(self, largest_fall: float) -> int:
        """The first window (from 1) at which this trace, without its noise, falls by less than a share over ten windows.

        Over each stretch of windows that the verdict rests on, and with codes that match and a discriminator that cannot
        tell in each of them. Raises StopIteration if there is none.
        """
        readings = self.readings(noisy=False)
        limit = {"saturation_trend_p": 0.0, "saturation_slope_percent": 100 * largest_fall}
        settings = SETTINGS.model_copy(update=limit)
        needed = windows_needed(SETTINGS)
        ends = range(needed, NUM_WINDOWS + 1)
        return next(end for end in ends if judge(readings[end - needed : end], settings).verdict == "saturated")


def _first_saturated(readings: list[Reading]) -> int | None:
    detector = Detector(SETTINGS)
    return next((n for n, r in enumerate(readings, 1) if detector.read(r).verdict == "saturated"), None)


def _series(**changes: float) -> list[Reading]:
    """Windows at rest but for some values, as many as a verdict can need."""
    return [replace(AT_REST, step=100 * n, **changes) for n in range(1, 13)]


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({}, "saturated", "flat at 0.2000"),
        ({"d_accuracy": 0.81, "discriminator_loss": 0.9}, "discriminator_winning", "81% of codes and prior samples"),
        ({"energy_distance": 0.156}, "false_saturation", "energy distance 0.1560 (at most 0.0050)"),
        ({"c2st_accuracy": 0.6}, "false_saturation", "tells 60% right (at most 55%)"),
        ({"smallest_eigenvalue": 0.05}, "collapsed", "0.050, 1 at best"),
        ({"discriminator_loss": 1.2, "d_accuracy": 0.6}, "not_yet", "still tells: 60% right, loss 1.200"),
        ({"d_prior": 0.44}, "not_yet", "the discriminator still tells"),
        ({"d_code": 0.56}, "not_yet", "the discriminator still tells"),
    ],
)
def test_each_verdict_has_its_readings(changes: dict[str, float], verdict: str, words: str) -> None:
    """Twelve windows alike: the verdict that they make, and the numbers in its reason."""
    judgement = judge(_series(**changes), SETTINGS)
    assert judgement.verdict == verdict
    assert words in judgement.reason
    for name, value in changes.items():
        assert judgement.numbers[name] == value


def test_the_readings_that_fooled_by_loss_alone_are_called_false() -> None:
    """Rates of 6e-4 and 8e-4 gave after an epoch a loss of 1.394 and an accuracy of 0.509, and codes far from the prior."""
    fooled = {"discriminator_loss": 1.394, "d_accuracy": 0.509, "energy_distance": 0.156, "c2st_accuracy": 0.58}
    assert judge(_series(**fooled), SETTINGS).verdict == "false_saturation"


def test_one_window_decides_nothing() -> None:
    """One of three that differs, by the samples of the prior that it has drawn, makes nothing false; a second one does."""
    windows, odd = _series(), replace(AT_REST, energy_distance=0.2)
    assert judge([*windows[:-1], odd], SETTINGS).verdict == "saturated"
    assert judge([*windows[:-2], odd, odd], SETTINGS).verdict == "false_saturation"
    assert judge([*windows[:-1], replace(AT_REST, d_accuracy=0.9)], SETTINGS).verdict == "not_yet"


def test_a_verdict_needs_as_many_windows_as_it_says() -> None:
    """Ten flat ones, three times: the twelfth window is the first that can say `saturated`."""
    windows = _series()
    assert judge(windows[:11], SETTINGS).verdict == "not_yet"
    assert "11 windows so far, 12 are needed" in judge(windows[:11], SETTINGS).reason
    assert judge(windows, SETTINGS).verdict == "saturated"


@pytest.mark.parametrize("per_window", [-0.0006, 0.0006])
def test_a_steady_change_of_the_reconstruction_is_no_rest(per_window: float) -> None:
    """0.6 % over ten windows, down or up (it overfits), is told with its size."""
    windows = [replace(AT_REST, reconstruction_bce=0.2 * (1 + per_window * n)) for n in range(12)]
    judgement = judge(windows, SETTINGS)
    assert judgement.verdict == "not_yet"
    assert f"changes by {1000 * per_window:+.2f} % over 10 windows"[:18] in judgement.reason


def test_a_slow_but_certain_fall_is_no_rest() -> None:
    """0.3 % over ten windows is within the limit, but where nothing jumps it is seen to go on."""
    windows = [replace(AT_REST, reconstruction_bce=0.2 * (1 - 0.0003 * n)) for n in range(12)]
    judgement = judge(windows, SETTINGS)
    assert judgement.verdict == "not_yet"
    assert "falls slowly but surely: -0.30 % over 10 windows" in judgement.reason


def test_a_detector_goes_on_from_its_state_as_if_nothing_had_been() -> None:
    """Taken apart and put together between any two windows it gives the same verdicts and reasons."""
    readings = Trace.at_random(4, plateau=True).readings(noisy=True)
    whole, cut = Detector(SETTINGS), Detector(SETTINGS)
    for reading in readings:
        state = cut.state_dict()
        cut = Detector(SETTINGS)
        cut.load_state_dict(state)
        assert whole.read(reading) == cut.read(reading)
        assert whole.words == cut.words
    assert whole.verdict == "saturated"


def test_the_first_step_of_the_verdict_is_kept() -> None:
    """Whatever becomes of it later; what a checkpoint of an earlier version does not tell is not made up."""
    detector = Detector(SETTINGS)
    for window in range(windows_needed(SETTINGS) + 5):
        detector.read(replace(AT_REST, step=100 * window))
    first = 100 * (windows_needed(SETTINGS) - 1)
    assert detector.saturated_at_step == first
    detector.read(replace(AT_REST, step=9000, energy_distance=1.0, c2st_accuracy=0.9))
    resumed, older = Detector(SETTINGS), Detector(SETTINGS)
    resumed.load_state_dict(detector.state_dict())
    assert resumed.saturated_at_step == first
    for window in range(5):
        detector.read(replace(AT_REST, step=10000 + window))
    older.load_state_dict({k: v for k, v in detector.state_dict().items() if k != "saturated_at_step"})
    older.read(replace(AT_REST, step=11000))
    assert (detector.saturated_at_step, older.saturated_at_step) == (first, None)


@pytest.mark.campaign
def test_made_up_traces_are_judged_in_time_and_never_wrongly(size: int, tell: Callable[[str], None]) -> None:
    """Of traces that come to rest 99 % are found within five windows, none before; of those that never do, none is.

    At rest is a trace that falls over ten windows by less than the limit, and by less than what noise moves a window.
    """
    num = 5 * size
    limit = SETTINGS.saturation_slope_percent / 100
    late = early = 0
    for trace in (Trace.at_random(seed, plateau=True) for seed in range(num)):
        found = _first_saturated(trace.readings(noisy=True)) or 10**6
        late += found > trace.rests_from(min(limit, trace.noise)) + 5
        early += found < trace.rests_from(limit) - 5
    restless = [Trace.at_random(10**6 + seed, plateau=False) for seed in range(num)]
    fooled = sum(_first_saturated(trace.readings(noisy=True)) is not None for trace in restless)
    tell(f"{num} traces with a plateau: {late} found late, {early} early; {num} without: {fooled} taken for one")
    assert late <= max(1, num // 100)
    assert (early, fooled) == (0, 0)


def test_the_slope_and_the_trend_are_those_of_theil_sen_and_mann_kendall() -> None:
    """By hand for a short series, by counting all orders for the trend, and by the normal distribution for a long one."""
    assert list(_slope_and_trend((4.0, 3.0, 3.5, 1.0))) == pytest.approx([100 * -1.0 * 4 / 3.25, 4 / 24])
    for size in (4, 6):
        rising = [sum(a < b for a, b in combinations(order, 2)) for order in permutations(range(size))]
        for count in range(size * (size - 1) // 2 + 1):
            assert _chance_of_so_few(count, size) == pytest.approx(sum(r <= count for r in rising) / len(rising))
    for sds in (-2, 0, 1):  # of the number of rising pairs; beyond 50 values by the normal distribution
        counts = {
            size: round(size * (size - 1) / 4 + sds * (size * (size - 1) * (2 * size + 5) / 72) ** 0.5)
            for size in (50, 51)
        }
        chances = [_chance_of_so_few(count, size) for size, count in counts.items()]
        assert chances[0] == pytest.approx(chances[1], abs=0.01)
    assert _slope_and_trend((0.2,) * 10)[0] == 0
    assert _slope_and_trend((0.2,) * 10)[1] == 0.5  # a tie counts as half a rise
