"""When a run is done: a verdict from readings of held-out images, one a window, that a single number cannot fool.

That the discriminator tells codes from prior no better than by chance may mean that they match, or that it is too weak to
see: so `saturated` asks for a flat reconstruction, a discriminator that cannot tell, and codes that tests independent of it
cannot tell from the prior either. The verdict is a function of the last readings and the settings alone.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import accumulate, combinations
from statistics import NormalDist, median
from typing import Any

from job.config.settings import Settings
from job.rundir.status import Verdict

_WORDS: dict[Verdict, str] = {
    "not_yet": "not saturated yet",
    "saturated": "saturated",
    "discriminator_winning": "the discriminator is winning",
    "false_saturation": "false saturation",
    "collapsed": "collapsed",
}

CHANCE_LOSS = 2 * math.log(2)  # the discriminator's loss when it cannot tell, nats


@dataclass(frozen=True)
class Reading:
    """What is read at the end of one window, in eval mode on held-out images and as many samples of the prior.

    Losses in nats, distances and the smallest eigenvalue of the codes' covariance in units of the prior's std and variance.
    """

    step: int
    reconstruction_bce: float
    discriminator_loss: float
    d_accuracy: float
    d_prior: float
    d_code: float
    energy_distance: float
    energy_distance_q99: float
    c2st_accuracy: float
    smallest_eigenvalue: float


@dataclass(frozen=True)
class Judgement:
    """A verdict, the sentence that gives its reason, and the numbers that caused it."""

    verdict: Verdict
    reason: str
    numbers: dict[str, Any]


class Detector:
    """Takes one reading a window; `judgement` is None before the first.

    `saturated_at_step` is the first window's end that made the verdict `saturated`, None if none has, or where that was before
    an earlier version's checkpoint, which does not tell.
    """

    def __init__(self, settings: Settings) -> None:
        self.readings: list[Reading] = []
        self.judgement: Judgement | None = None
        self.saturated_at_step: int | None = None
        self._settings = settings

    @property
    def verdict(self) -> Verdict:
        """The verdict of the last window."""
        return self.judgement.verdict if self.judgement is not None else "not_yet"

    @property
    def words(self) -> str:
        """The verdict and its reason, for people."""
        reason = self.judgement.reason if self.judgement is not None else "nothing has been measured"
        return f"{_WORDS[self.verdict]}: {reason}"

    @property
    def figures(self) -> dict[str, Any] | None:
        """The last reading and how flat the reconstruction is, for status.json; None before the first."""
        if self.judgement is None or not self.readings:
            return None
        return {"step": self.readings[-1].step, **self.judgement.numbers}

    def read(self, reading: Reading) -> Judgement:
        """Take the reading of the next window."""
        self.readings = [*self.readings, reading][-windows_needed(self._settings) :]
        previous, self.judgement = self.verdict, judge(self.readings, self._settings)
        if self.verdict == "saturated" and previous != "saturated" and self.saturated_at_step is None:
            self.saturated_at_step = reading.step
        return self.judgement

    def state_dict(self) -> dict[str, Any]:
        """All that it needs to go on."""
        return {
            "readings": [asdict(reading) for reading in self.readings],
            "judgement": asdict(self.judgement) if self.judgement is not None else None,
            "saturated_at_step": self.saturated_at_step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.readings = [Reading(**values) for values in state["readings"]]
        self.judgement = Judgement(**state["judgement"]) if state["judgement"] is not None else None
        self.saturated_at_step = state.get("saturated_at_step")


def windows_needed(settings: Settings) -> int:
    """How many windows `saturated` rests on: stretches that overlap, one for each window that has to confirm it."""
    return settings.saturation_windows + settings.saturation_confirmations - 1


def judge(readings: list[Reading], settings: Settings) -> Judgement:
    """The verdict over the last readings, the newest last; there must be one."""
    newest, confirmations = readings[-1], settings.saturation_confirmations
    flatness = _flatness(readings[-settings.saturation_windows :])
    numbers = {**asdict(newest), **flatness}
    del numbers["step"]

    def holds(condition: Callable[[Reading, Settings], bool]) -> bool:
        """Whether a condition has held in every one of the windows that have to confirm it."""
        return len(readings) >= confirmations and all(condition(r, settings) for r in readings[-confirmations:])

    def told(verdict: Verdict, reason: str) -> Judgement:
        return Judgement(verdict, reason, numbers)

    if holds(_is_collapsed):
        return told(
            "collapsed",
            f"the codes have lost a dimension: smallest eigenvalue of their covariance {newest.smallest_eigenvalue:.3f}, "
            "1 at best",
        )
    if holds(_is_won):
        return told(
            "discriminator_winning",
            f"it tells {newest.d_accuracy:.0%} of codes and prior samples right: lower AAE_DISCRIMINATOR_LR or raise "
            "AAE_GENERATOR_LR under another AAE_RUN_NAME",
        )
    cannot_tell, mismatch = holds(_cannot_tell), _mismatch(readings[-confirmations:], settings)
    if cannot_tell and mismatch is not None:
        return told(
            "false_saturation", f"the discriminator cannot tell, but the codes do not match the prior: {mismatch}"
        )
    if cannot_tell and _has_been_flat(readings, settings):
        return told(
            "saturated",
            f"reconstruction flat at {newest.reconstruction_bce:.4f}, the discriminator cannot tell "
            f"({newest.d_accuracy:.0%} right), codes match the prior (energy distance {newest.energy_distance:.4f})",
        )
    return told("not_yet", _what_is_missing(readings, settings, flatness))


def _is_collapsed(reading: Reading, settings: Settings) -> bool:
    return reading.smallest_eigenvalue < settings.saturation_collapse


def _is_won(reading: Reading, settings: Settings) -> bool:
    return reading.d_accuracy > settings.saturation_winning


def _cannot_tell(reading: Reading, settings: Settings) -> bool:
    band = settings.saturation_output_band
    return (
        abs(reading.discriminator_loss - CHANCE_LOSS) < settings.saturation_loss_band
        and reading.d_accuracy <= 0.5 + band
        and abs(reading.d_prior - 0.5) <= band
        and abs(reading.d_code - 0.5) <= band
    )


def _mismatch(readings: list[Reading], settings: Settings) -> str | None:
    """Why codes do not match the prior, None if they do: by the medians of some windows, each of which has its own samples."""
    energy = median(reading.energy_distance for reading in readings)
    accuracy = median(reading.c2st_accuracy for reading in readings)
    allowed = max(readings[-1].energy_distance_q99, settings.saturation_energy)
    if energy <= allowed and accuracy <= settings.saturation_c2st:
        return None
    return (
        f"energy distance {energy:.4f} (at most {allowed:.4f}), a fresh classifier tells {accuracy:.0%} right (at most "
        f"{settings.saturation_c2st:.0%})"
    )


def _has_been_flat(readings: list[Reading], settings: Settings) -> bool:
    """Whether the reconstruction was flat in each of the windows that have to confirm it."""
    if len(readings) < windows_needed(settings):
        return False
    size = settings.saturation_windows
    starts = range(len(readings) - windows_needed(settings), len(readings) - size + 1)
    return all(_is_flat(_flatness(readings[start : start + size]), settings) for start in starts)


def _is_flat(flatness: dict[str, float], settings: Settings) -> bool:
    slope, p = flatness["reconstruction_slope_percent"], flatness["reconstruction_trend_p"]
    return abs(slope) < settings.saturation_slope_percent and p > settings.saturation_trend_p


def _flatness(readings: list[Reading]) -> dict[str, float]:
    """How flat the reconstruction is over some windows: the two figures of the record."""
    slope_percent, trend_p = _slope_and_trend(tuple(reading.reconstruction_bce for reading in readings))
    return {"reconstruction_slope_percent": slope_percent, "reconstruction_trend_p": trend_p}


@lru_cache(maxsize=8)  # each stretch of windows is looked at again while the next ones confirm it
def _slope_and_trend(losses: tuple[float, ...]) -> tuple[float, float]:
    """How flat a series is: the slope over all of it in per cent of its median, and the chance of so clear a fall.

    By Theil and Sen's estimator, the median of the slopes between all pairs, and by Mann and Kendall's test, one-sided: the
    probability that as many pairs fall in a series without a trend. (scipy's take 1.8 s to load, in the midst of training.)
    """
    if len(losses) < 2:
        return 0.0, 1.0
    pairs = list(combinations(enumerate(losses), 2))
    slope = median((after - before) / (j - i) for (i, before), (j, after) in pairs)
    rising = sum(after > before for (_, before), (_, after) in pairs)
    ties = sum(after == before for (_, before), (_, after) in pairs)
    return 100 * slope * len(losses) / median(losses), _chance_of_so_few(rising + ties / 2, len(losses))


def _chance_of_so_few(rising: float, num: int) -> float:
    """The probability that at most so many pairs rise in a random order of `num` different values (Kendall, 1938)."""
    num_pairs = num * (num - 1) // 2
    if num > 50:
        std = math.sqrt(num * (num - 1) * (2 * num + 5) / 72)
        return NormalDist(num_pairs / 2, std).cdf(rising + 0.5)
    orders = [1]  # how many orders of the first values have 0, 1, ... rising pairs
    for size in range(2, num + 1):
        # The next value rises above none, one, ..., or all of those before it.
        sums = [0, *accumulate(orders + [0] * (size - 1))]
        orders = [sums[k + 1] - sums[max(0, k - size + 1)] for k in range(len(sums) - 1)]
    return sum(orders[: math.floor(rising) + 1]) / math.factorial(num)


def _what_is_missing(readings: list[Reading], settings: Settings, flatness: dict[str, float]) -> str:
    newest, confirmations = readings[-1], settings.saturation_confirmations
    if not _cannot_tell(newest, settings):
        return (
            f"the discriminator still tells: {newest.d_accuracy:.0%} right, loss {newest.discriminator_loss:.3f} "
            f"({CHANCE_LOSS:.3f} when it cannot)"
        )
    mismatch = _mismatch(readings[-confirmations:], settings)
    if mismatch is not None:
        return f"the codes do not match the prior yet: {mismatch}"
    if len(readings) < windows_needed(settings):
        return f"{len(readings)} windows so far, {windows_needed(settings)} are needed"
    if not _is_flat(flatness, settings):
        slope, windows = flatness["reconstruction_slope_percent"], settings.saturation_windows
        if abs(slope) < settings.saturation_slope_percent:
            return f"reconstruction falls slowly but surely: {slope:+.2f} % over {windows} windows"
        return f"reconstruction changes by {slope:+.2f} % over {windows} windows"
    return f"everything has come to rest, but not yet for {confirmations} windows in a row"
