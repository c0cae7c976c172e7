"""A run on one line of 80 columns, its name last and never cut; and a sweep on one."""

import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from job.commandline import clock, duration
from job.output import as_it_stands, escaped
from slurm.login.states import ENDED, LOST_AFTER_S, Shown, heartbeat_age_s, progress_age_s

STILL_S = 60.0  # without a step for longer is told
LONG_NAME = 31  # a longer one may reach beyond the terminal: the columns before it do not shrink for it

HEADER = ("STATE", "DONE", "BCE", "VERDICT", "LEFT", "RUN")
_RIGHT = (1, 2)  # columns of numbers
_BAD, _GOOD, _FAINT = "31", "32", "2"  # red, green, faint


@dataclass(frozen=True)
class Line:
    """The cells of a line; `left` has a shorter form for narrow terminals, and tells all that there is to a sweep but its share."""

    state: str
    done: str
    bce: str
    verdict: str
    left: tuple[str, str]
    name: str
    style: str | None = None
    is_sweep: bool = False

    def cells(self, *, short: bool) -> tuple[str, ...]:
        """As they stand on the line, the name left out."""
        return (self.state, self.done, self.bce, self.verdict, self.left[short])


def line_of(one: Shown) -> Line:
    """A run's."""
    bce, total = one.figures.get("reconstruction_bce"), one.status.total_steps
    return Line(
        one.state,
        f"{_percent(one.status.step, total)}%" if total > 0 else "-",
        f"{bce:.4f}" if bce is not None else "-",
        one.status.saturation or "-",
        left_of(one),
        one.run_dir.path.name,
        _BAD if one.needs_person else _GOOD if one.state == "finished" else _FAINT if one.state in ENDED else None,
    )


def left_of(one: Shown) -> tuple[str, str]:
    """How long until it is finished, why it waits, or what is wrong; and the same in at most 12 characters."""
    if one.state == "failed":
        reason = (one.status.reason or "failed").replace(" ", "_")
        return reason, reason[:12]
    if one.state == "lost":
        return "no process", "no process"
    if one.pending_category is not None:
        return _of_pending(one)
    if one.needs_person:
        return "no job", "no job"
    if one.is_suspended:
        return "suspended", "suspended"
    left = _left(one) or "-"
    if one.state != "running":
        is_starting = one.job is not None and one.job.is_alive and one.job.state == "RUNNING"
        return ("starting", "starting") if is_starting and one.state not in ENDED else (left, left)
    if (silent_s := heartbeat_age_s(one.status)) > LOST_AFTER_S:
        return f"silent {duration(silent_s)}", "silent"
    if (still_s := progress_age_s(one.status) or 0.0) > STILL_S:
        return f"no step {duration(still_s)}", "no step"
    return left, left


def _of_pending(one: Shown) -> tuple[str, str]:
    why = str(one.pending_category)
    if one.needs_person:
        return why, why
    left, starts_at = _left(one), one.estimated_start
    if left is not None:
        return f"{left}, {why}", left
    return (f"{why}, {clock(starts_at)}" if starts_at is not None and starts_at > time.time() else why), why


def _left(one: Shown) -> str | None:
    ends_at = one.ends_at
    return duration(ends_at - time.time()) if ends_at is not None else None


def _percent(step: int, total: int) -> int:
    """Rounded down, so that 100 is all of it."""
    return min(100, 100 * step // total)


def counted(states: Iterable[str]) -> str:
    """How many there are of each state, in the order in which they are told."""
    found = Counter(states)
    order = ["finished", "running", "pending", *sorted(set(found) - {"finished", "running", "pending"})]
    return ", ".join(f"{found[state]} {state}" for state in order if found[state])


def folded(name: str, num_elements: int, ones: Sequence[Shown]) -> Line:
    """A sweep's."""
    done, total = sum(one.status.step for one in ones), sum(one.status.total_steps for one in ones)
    states = ["pending" if one.pending_reason is not None else one.state for one in ones]
    states += ["not there"] * (num_elements - len(ones))
    words = counted(states)
    saturated = sum(one.status.saturation == "saturated" for one in ones)
    is_bad = any(one.needs_person for one in ones)
    style = _BAD if is_bad else _GOOD if states.count("finished") == num_elements else None
    share = f"{_percent(done, total)}%" if total else "-"
    told = f"{words}; {saturated} saturated" if saturated else words
    return Line("sweep", share, "", "", (told, words), name, style, is_sweep=True)


def layout(lines: Sequence[Line], width: int, *, header: bool = True) -> list[str]:
    """The lines with their columns aligned: as wide as they may be within `width`, and never cut."""
    rows = [*([Line(*HEADER[:4], (HEADER[4], HEADER[4]), HEADER[5])] if header else []), *lines]
    texts: list[str] = []
    for gap, short in ((2, False), (1, False), (2, True), (1, True)):
        texts = _aligned(rows, gap, width, short=short)
        if all(
            len(text) <= width or len(row.name) > LONG_NAME or row.is_sweep
            for text, row in zip(texts, rows, strict=True)
        ):
            break
    return texts


def _aligned(rows: Sequence[Line], gap: int, width: int, *, short: bool) -> list[str]:
    cells = [[_cell(text) for text in row.cells(short=short)] for row in rows]
    runs = [line for line, row in zip(cells, rows, strict=True) if not row.is_sweep]
    widths = [max((len(line[n]) for line in (cells if n < 2 else runs)), default=0) for n in range(5)]
    between, texts = " " * gap, []
    for line, row in zip(cells, rows, strict=True):
        aligned = [t.rjust(w) if n in _RIGHT else t.ljust(w) for n, (t, w) in enumerate(zip(line, widths, strict=True))]
        if not row.is_sweep:
            texts.append(between.join([*aligned, _cell(row.name)]))
            continue
        full, brief = (between.join([*aligned[:2], counts, _cell(row.name)]) for counts in row.left)
        texts.append(full if len(full) <= width else brief)
    return texts


def _cell(text: str) -> str:
    return escaped(text).replace("\n", "\\n").replace("\t", "\\t")


def print_lines(lines: Sequence[Line], *, header: bool = True) -> None:
    """Print runs and sweeps, in colour on a terminal that has any."""
    coloured = has_colours()
    styles = [*([_FAINT] if header else []), *(line.style for line in lines)]
    for text, style in zip(layout(lines, terminal_width(), header=header), styles, strict=True):
        as_it_stands().write(f"\x1b[{style}m{text}\x1b[0m\n" if coloured and style else f"{text}\n")


def terminal_width() -> int:
    """COLUMNS if that is set, else the terminal's width, else 80."""
    return shutil.get_terminal_size().columns


def has_colours() -> bool:
    """Whether stdout is a terminal that shows colours, and its user wants them (NO_COLOR)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
