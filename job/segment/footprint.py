"""What a run will leave on disk, reckoned from its settings before it trains."""

import math
from dataclasses import dataclass

from job.config.settings import Settings
from job.output import size

MANY_LATTICES, LARGE_LOG_BYTES = 2_000, 10**9
# As measured: a `step` record, an `evaluation`, and a lattice a cell.
_STEP_BYTES, _EVALUATION_BYTES, _CELL_BYTES = 350, 550, 360


@dataclass(frozen=True)
class Footprint:
    """What lies in the run directory once the run is finished; the sizes are estimates, in bytes."""

    num_lattices: int
    lattice_bytes: int
    log_bytes: int
    weights_bytes: int

    @property
    def words(self) -> str:
        """In a line."""
        total = self.num_lattices * self.lattice_bytes + self.log_bytes + self.weights_bytes
        return (
            f"will leave about {size(total)}: {self.num_lattices:,} lattices, a log of {size(self.log_bytes)}, "
            f"a checkpoint and weights of {size(self.weights_bytes)}"
        )


def footprint(settings: Settings, weights_bytes: int) -> Footprint:
    """Of a run from its first step to its total, whatever is done of it; `weights_bytes` are those of its last checkpoint, too."""
    total = settings.total_steps
    records = total // settings.log_every_steps * _STEP_BYTES + total // settings.window_steps * _EVALUATION_BYTES
    cells = settings.lattice_size**2
    return Footprint(total // settings.lattice_every_steps, cells * _CELL_BYTES, records, weights_bytes)


def too_much(settings: Settings, found: Footprint) -> list[tuple[str, str]]:
    """What of it is more than anybody looks at, with the cadence that fits: (reason, message)."""
    told = []
    if found.num_lattices > MANY_LATTICES:
        fits = _round_up(settings.total_steps / MANY_LATTICES)
        message = f"{found.num_lattices:,} lattices are to be drawn; AAE_LATTICE_EVERY_STEPS={fits} makes at most {MANY_LATTICES:,}"
        told.append(("many_lattices", message))
    if found.log_bytes > LARGE_LOG_BYTES:
        share = found.log_bytes / LARGE_LOG_BYTES
        of_steps, of_windows = (_round_up(share * every) for every in (settings.log_every_steps, settings.window_steps))
        cadence = f"AAE_LOG_EVERY_STEPS={of_steps} and AAE_EVALUATE_EVERY_STEPS={of_windows}"
        message = f"the log is to grow to {size(found.log_bytes)}; {cadence} keep it below {size(LARGE_LOG_BYTES)}"
        told.append(("large_log", message))
    return told


def _round_up(number: float) -> int:
    """To two digits and zeros."""
    unit: int = 10 ** max(0, len(str(int(number))) - 2)
    return math.ceil(number / unit) * unit
