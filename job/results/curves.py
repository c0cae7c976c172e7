"""`curves.png`: how a run has gone, drawn from its event log by a process beside the one that trains.

`python -m job.results.curves RUN [at-last]` writes the picture to stdout.
"""

import contextlib
import io
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from job.log.course import Course, read_course
from job.log.series import Series
from job.output import leave
from job.rundir.directory import RunDir
from job.rundir.outbox import Outbox

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAUSE = 200  # a picture is begun no sooner than this many times the time that the last one took
FIRST_S = 60.0  # nor within so many seconds of the start, or of an attempt that failed
LAST_S = 60.0  # what the last picture may take

_COLOURS = {
    "saturated": "#2a9d4a",
    "false_saturation": "#d98a00",
    "discriminator_winning": "#c8453b",
    "collapsed": "#7b3fa0",
    "not_yet": "#8a8f98",
}
_LINE, _SECOND = "#1f5fa8", "#d1642a"


def draw_curves(run_dir: RunDir) -> bytes:
    """The curves of a run as a PNG; raises OSError or ValueError if its log cannot be read."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    log = read_course(run_dir.events_file)
    curves = log.curves
    figure = Figure(figsize=(9, 12), dpi=100)
    panels = figure.subplots(5, 1, sharex=True, height_ratios=(1.3, 1, 1, 1, 1.3))
    figure.subplots_adjust(left=0.1, right=0.98, top=0.945, bottom=0.045, hspace=0.08)
    reconstruction, discriminator, generator, outputs, distance = panels
    _plot(reconstruction, curves, "reconstruction_loss", "training", _SECOND)
    _plot(reconstruction, curves, "reconstruction_bce", "held out", _LINE, marker=".")
    # Its legend stands above it: the names of the verdicts take its upper edge.
    _describe(reconstruction, "reconstruction\nBCE a pixel, nats", loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    _plot(discriminator, curves, "discriminator_loss", "training", _LINE)
    _describe(discriminator, "discriminator loss\nnats", (2 * math.log(2), "2 ln 2: cannot tell"))
    _plot(generator, curves, "generator_loss", "training", _LINE)
    _describe(generator, "generator loss\nnats", (math.log(2), "ln 2: fools it"))
    _plot(outputs, curves, "d_prior", "D(prior)", _LINE)
    _plot(outputs, curves, "d_code", "D(code)", _SECOND)
    _plot(outputs, curves, "d_accuracy", "accuracy", "#666666")
    _describe(outputs, "D's outputs\nmean probability", (0.5, "0.5: cannot tell"))
    _draw_distance(distance, curves)
    distance.set_xlabel("optimiser steps")
    for panel in panels:
        for from_step, _ in log.resumes:
            panel.axvline(from_step, color="#b0b4ba", linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)
        for step, verdict in log.verdicts:
            panel.axvline(step, color=_COLOURS.get(verdict, "#000000"), linewidth=1.2, zorder=0)
    for step, verdict in log.verdicts:
        reconstruction.annotate(
            verdict.replace("_", " "),
            (step, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(2, -3),
            textcoords="offset points",
            rotation=90,
            va="top",
            fontsize=8,
            color=_COLOURS.get(verdict, "#000000"),
        )
    figure.suptitle(_title(run_dir, log), fontsize=11)
    file = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(file, format="png")
    return file.getvalue()


def _title(run_dir: RunDir, log: Course) -> str:
    verdict = log.verdicts.last[1].replace("_", " ") if log.verdicts.last is not None else "not yet"
    segments = 1 + log.resumes.count
    dotted = " (dotted lines)" if segments > 1 else ""
    return (
        f"{run_dir.path.name}, step {log.last_step:,}\n"
        f"saturation: {verdict}; {segments:,} segment{'s' * (segments > 1)}{dotted}"
    )


def _draw_distance(panel: "Axes", curves: dict[str, Series]) -> None:
    """Energy distance on a logarithmic scale, over its null band; what is below 0 by chance is shown at the bottom."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    floor = 1e-4
    _plot(panel, curves, "energy_distance", "energy distance", _LINE, marker=".", floor=floor)
    panel.set_yscale("log")
    # Powers of ten as numbers: matplotlib's own would have its parser of formulae built, a quarter of all the time that this takes.
    panel.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"1e{math.log10(value):.0f}" if value < 0.01 else f"{value:g}")
    )
    panel.yaxis.set_minor_formatter(NullFormatter())
    band = curves["energy_distance_q99"].last
    if band is not None:
        panel.axhspan(floor, band[1], color="#2a9d4a", alpha=0.15, linewidth=0)
        panel.annotate(
            "null band: 99 % of equal samples", (0, 0), xycoords="axes fraction", va="bottom",
            fontsize=8, color="#2a7d3e", xytext=(4, 4), textcoords="offset points",
        )  # fmt: skip
        panel.set_ylim(bottom=floor)
    _describe(panel, "codes from prior\nenergy distance, prior's std")


def _plot(
    panel: "Axes",
    curves: dict[str, Series],
    field: str,
    label: str,
    colour: str,
    marker: str | None = None,
    floor: float = -math.inf,
) -> None:
    found = [(step, max(value, floor)) for step, value in curves[field].points()]
    if found:
        panel.plot(*zip(*found, strict=True), label=label, color=colour, linewidth=1.2, marker=marker, markersize=4)


def _describe(panel: "Axes", label: str, reference: tuple[float, str] | None = None, **legend: Any) -> None:
    panel.set_ylabel(label, fontsize=9)
    panel.grid(alpha=0.25)
    panel.margins(x=0.01)
    if reference is not None:
        value, text = reference
        panel.axhline(value, color="#444444", linewidth=0.9, linestyle="--", label=text)
    if panel.get_legend_handles_labels()[0]:
        panel.legend(**{"loc": "best", "fontsize": 8, "framealpha": 0.85, **legend})
    else:
        panel.text(0.5, 0.5, "nothing logged yet", transform=panel.transAxes, ha="center", va="center", color="#888888")


def curves_at_last(run_dir: RunDir, timeout_s: float = LAST_S) -> bytes:
    """The curves of a run, drawn by a process beside this one; raises OSError or subprocess.SubprocessError if it cannot be."""
    with tempfile.TemporaryFile() as picture:
        process = _begin_to_draw(run_dir, picture, "at-last")
        try:
            exit_code = process.wait(timeout_s)
        finally:
            _end(process)
        if exit_code != 0:
            raise subprocess.CalledProcessError(exit_code, "job.results.curves")
        picture.seek(0)
        return picture.read()


def _begin_to_draw(run_dir: RunDir, picture: IO[bytes], *when: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-P", "-m", "job.results.curves", str(run_dir.path), *when],
        stdout=picture,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Ctrl-C is for the training process alone; in a session of its own, `nice` would count for nothing with autogroups.
        process_group=0,
    )


def _end(process: "subprocess.Popen[bytes]") -> None:
    """See to it that it draws no more; one that hangs in the kernel is left to it."""
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)


class CurveDrawing:
    """Keeps `curves.png` fresh without costing the training loop more than the start of a process now and then."""

    def __init__(self, run_dir: RunDir, outbox: Outbox) -> None:
        self._run_dir = run_dir
        self._outbox = outbox
        self._process: subprocess.Popen[bytes] | None = None
        self._picture: IO[bytes]
        self._began_s = 0.0
        self._next_s = time.monotonic() + FIRST_S

    def refresh(self) -> None:
        """Take over the picture that has been drawn, if one has, and begin the next if it is time."""
        if self._process is not None and self._process.poll() is not None:
            self._take_over(self._process.returncode)
        if self._process is None and time.monotonic() >= self._next_s:
            self._began_s = time.monotonic()
            self._next_s = self._began_s + FIRST_S
            # No room for a temporary file or a process: training goes on, and it is tried again later.
            with contextlib.suppress(OSError):
                self._begin()

    def _begin(self) -> None:
        self._picture = tempfile.TemporaryFile()  # noqa: SIM115 - the process that is started writes there
        self._process = _begin_to_draw(self._run_dir, self._picture)

    def _take_over(self, exit_code: int) -> None:
        with self._picture:
            self._picture.seek(0)
            content = self._picture.read()
        self._process = None
        self._next_s = time.monotonic() + PAUSE * (time.monotonic() - self._began_s)
        # What a full disk does not take is drawn again later.
        if exit_code == 0 and not self._outbox.items:
            self._outbox.put(self._run_dir.relative(self._run_dir.curves), content)

    def close(self) -> None:
        """Leave nothing behind that still draws."""
        if self._process is not None:
            _end(self._process)
            self._picture.close()
            self._process = None


def main() -> None:
    """Draw the curves of the run given to stdout, as slowly as the training that goes on beside it likes, or `at-last`."""
    if "at-last" not in sys.argv:
        os.nice(19)
    with contextlib.suppress(OSError):  # where memory ends, it is this process that goes, not the one that trains
        Path("/proc/self/oom_score_adj").write_text("1000")
    sys.stdout.buffer.write(draw_curves(RunDir(Path(sys.argv[1]))))
    sys.stdout.buffer.flush()
    leave(0)


if __name__ == "__main__":
    main()
