"""What a run will leave on disk, reckoned from its settings before it trains."""

import math
from dataclasses import dataclass

from job.config.settings import Settings
from job.output import size

MANY_LATTICES, LARGE_LOG_BYTES = 2_000, 10**9
# As measured: a `step` record, an `evaluation`, and a lattice a cell.
_STEP_BYTES, _EVALUATION_BYTES, _CELL_BYTES = 350, 550, 360
_FLOAT_BYTES, _PIXELS = 4, 28 * 28
_OTHER_FILES = 20  # settings, status, log, claims, curves, final/, submitit's


@dataclass(frozen=True)
class Footprint:
    """What lies in the run directory once the run is finished; the sizes are estimates, in bytes."""

    num_lattices: int
    lattice_bytes: int
    log_bytes: int
    checkpoint_bytes: int
    weights_bytes: int
    num_checkpoints: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.num_lattices * self.lattice_bytes + self.log_bytes + self.checkpoint_bytes + self.weights_bytes

    @property
    def peak_bytes(self) -> int:
        """The most that it takes while it trains: its checkpoints, one more while that is written."""
        return self.total_bytes + self.num_checkpoints * self.checkpoint_bytes

    @property
    def num_files(self) -> int:
        """About how many files."""
        return self.num_lattices + self.num_checkpoints + _OTHER_FILES

    @property
    def words(self) -> str:
        """In a line."""
        return (
            f"will leave about {size(self.total_bytes)}: {self.num_lattices:,} lattices, a log of {size(self.log_bytes)}, "
            f"a checkpoint and weights of {size(self.checkpoint_bytes + self.weights_bytes)}"
        )


def footprint(settings: Settings) -> Footprint:
    """Of a run from its first step to its total, whatever is done of it."""
    total = settings.total_steps
    records = total // settings.log_every_steps * _STEP_BYTES + total // settings.window_steps * _EVALUATION_BYTES
    cells = settings.lattice_size**2
    encoder, decoder, discriminator = _num_weights(settings)
    weights = _FLOAT_BYTES * (encoder + decoder + discriminator)
    averages = _FLOAT_BYTES * (encoder + decoder) if settings.ema_decay else 0
    # Adam's two moments of each weight; the encoder has them twice, once when fooling.
    moments = 2 * _FLOAT_BYTES * (2 * encoder + decoder + discriminator)
    return Footprint(
        total // settings.lattice_every_steps,
        cells * _CELL_BYTES,
        records,
        weights + averages + moments,
        weights,
        settings.keep_checkpoints,
    )


def _num_weights(settings: Settings) -> tuple[int, int, int]:
    """Weights and biases of the encoder, the decoder and the discriminator, each of two hidden layers."""
    hidden, code = settings.hidden_dim, settings.latent_dim

    def of_network(inputs: int, outputs: int) -> int:
        return (inputs + 1) * hidden + (hidden + 1) * hidden + (hidden + 1) * outputs

    return of_network(_PIXELS, code), of_network(code, _PIXELS), of_network(code, 1)


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
