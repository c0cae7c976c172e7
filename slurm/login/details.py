"""All that is known of one run, in sentences, below its line."""

import textwrap
import time
from collections.abc import Iterator
from datetime import datetime

from job.commandline import clock, duration
from job.config.settings_file import read_record
from job.errors import AaeError
from job.output import size
from slurm.login.allotment import advice
from slurm.login.overview import STILL_S
from slurm.login.states import LOST_AFTER_S, Shown, heartbeat_age_s, progress_age_s, size_bytes
from slurm.scheduler.reasons import explained, helpless

_LABEL = 10  # columns, of the word before a sentence
# Settings: over how many windows of how many steps, and what is flat there.
_FLAT = ("saturation_windows", "evaluate_every_steps", "saturation_slope_percent", "saturation_trend_p")
CHANCE_LOSS, CHANCE = 1.386, 0.5  # the discriminator's when it cannot tell: 2 ln 2, and its accuracy


def details_of(one: Shown, width: int | None) -> list[str]:
    """The lines of a run's sentences, broken at `width`, None for not at all. Commands and paths are never broken."""
    lines = []
    for label, sentence in _sentences(one):
        lines += _broken(f"  {label:<{_LABEL}}", " ".join(sentence.splitlines()), width)
    command = one.next or (one.resumption if one.state == "cancelled" else None)
    if command is not None:
        lines += [f"  {'next' if one.needs_person else 'to go on'}:", f"    {command}"]
    return lines


def _broken(label: str, sentence: str, width: int | None) -> list[str]:
    if width is None:
        return [label + sentence]
    return textwrap.wrap(
        sentence,
        max(width, 40),
        initial_indent=label,
        subsequent_indent=" " * len(label),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _sentences(one: Shown) -> Iterator[tuple[str, str]]:
    """A word and what there is to say of it."""
    if one.note and one.pending_reason is None:
        yield "state", one.note
    if one.status.verdict:
        yield "verdict", one.status.verdict
    yield "steps", _steps(one)
    if one.figures:
        yield "quality", _quality(one)
    for label, told in (("process", _process(one)), ("job", _job(one)), ("ahead", _ahead(one))):
        if told is not None:
            yield label, told
    yield "so far", _so_far(one)
    yield "use", _use(one)
    if one.allocation is not None and (words := advice(one.status, one.allocation)) is not None:
        yield "next time", words
    for finding in one.findings:
        yield "beware", finding.sentence
    if one.record is None:
        yield "settings", _why_no_settings(one)


def _why_no_settings(one: Shown) -> str:
    try:
        return "settings.json is gone" if read_record(one.run_dir) is None else "settings.json was away"
    except (AaeError, OSError) as error:
        return str(error)


def _steps(one: Shown) -> str:
    kept = one.status
    of = f" of {kept.total_steps:,}" if kept.total_steps else ", of how many is not known"
    if kept.checkpoint_step is None:
        return f"{kept.step:,}{of}; no checkpoint yet"
    unsaved = kept.step - kept.checkpoint_step
    tail = "not saved yet" if one.state == "running" else "lost, and done again when the run goes on"
    tail = f"; the last {unsaved:,} are {tail}" if unsaved > 0 and one.state != "finished" else ""
    return f"{kept.step:,}{of}; newest checkpoint at step {kept.checkpoint_step:,}{tail}"


def _quality(one: Shown) -> str:
    figures = one.figures
    told = [_reconstruction(one)]
    accuracy, loss = figures.get("d_accuracy"), figures.get("discriminator_loss")
    if accuracy is not None and loss is not None:
        told.append(
            f"the discriminator tells {accuracy:.0%} right, loss {loss:.3f} ({CHANCE:.0%} and {CHANCE_LOSS} when it cannot tell)"
        )
    energy, band = figures.get("energy_distance"), figures.get("energy_distance_q99")
    if energy is not None and band is not None:
        where = "within" if energy <= band else "outside"
        told.append(f"energy distance from the prior {energy:.4f}, {where} its null band (up to {band:.4f})")
    fresh = figures.get("c2st_accuracy")
    if fresh is not None:
        told.append(f"a fresh classifier tells {fresh:.0%} of codes and prior right ({CHANCE:.0%} when they match)")
    at = f"at step {figures['step']:,}: " if figures.get("step") is not None else ""
    return at + "; ".join(told)


def _reconstruction(one: Shown) -> str:
    bce, slope = one.figures.get("reconstruction_bce"), one.figures.get("reconstruction_slope_percent")
    trend_p = one.figures.get("reconstruction_trend_p")
    told = f"BCE {bce:.4f} a pixel" if bce is not None else "BCE unknown"
    kept = one.record.settings if one.record is not None else {}
    windows, window, least_slope, least_p = (kept.get(name) or 0 for name in _FLAT)
    if slope is None or trend_p is None or not (windows and window):
        return told
    num = (one.figures.get("step") or 0) // window
    if num < windows:
        return f"{told}, {num:.0f} of the {windows} windows that tell whether it is flat"
    over = f"{slope:+.2f} % over {windows} windows"
    if abs(slope) >= least_slope:
        return f"{told}, not flat: {over}"
    return f"{told}, flat: {over}" if trend_p > least_p else f"{told}, not flat, it falls slowly but surely: {over}"


def _process(one: Shown) -> str | None:
    kept = one.status
    if one.state not in ("running", "lost") or kept.pid is None:
        return None
    beat_s, still_s = heartbeat_age_s(kept), progress_age_s(kept)
    told = f"{kept.pid} on host {kept.host}; its heart beat {duration(beat_s)} ago"
    if still_s is not None:
        told += f", its step grew {duration(still_s)} ago"
    if one.state == "running" and beat_s > LOST_AFTER_S:
        return f"{told}: it is silent, though its job runs"
    if one.state == "running" and still_s is not None and still_s > STILL_S:
        return f"{told}: it lives, but no step comes"
    return told


def _job(one: Shown) -> str | None:
    job, limit_at = one.job, one.status.limit_at
    if one.job_id is None:
        return None
    told = one.job_id + (f" on cluster {job.cluster}" if job is not None and job.cluster else "")
    if job is not None and job.is_pending:
        told += f" waits ({one.pending_category}): {explained(job.reason)}"
        stuck, starts_at = helpless(job.state, job.reason), one.estimated_start
        if stuck is not None:
            return f"{told}: {stuck.sentence}"
        if starts_at is None:
            return f"{told}; Slurm does not say yet when it starts"
        return f"{told}; Slurm expects to start it at {clock(starts_at)}"
    if job is not None and job.is_alive:
        told += f" {job.state}" + (f" on node {job.node}" if job.node else "")
        if limit_at is not None and one.state == "running" and not one.is_suspended:
            ends_at = datetime.fromisoformat(limit_at).timestamp()
            told += f"; its time is up in {duration(max(0.0, ends_at - time.time()))}, at {clock(ends_at)}"
        return told
    return (
        f"{told} {job.state}" if job is not None else f"{told} is not in the queue" if one.state != "running" else told
    )


def _ahead(one: Shown) -> str | None:
    """The forecast with its terms."""
    ahead = one.forecast
    if ahead is None:
        return "how long it takes is not known yet" if one.state == "running" and one.status.step_ms is None else None
    told = f"{ahead.steps:,} steps, {duration(ahead.train_s)} of training at {ahead.step_ms:.3g} ms a step"
    more = ahead.segments - (1 if one.state == "running" else 0)
    if one.allocation is not None and ahead.segment_s is not None:
        told += f", {'no' if more <= 0 else f'about {more:,}'} more segment{'s' * (more != 1)}"
        if ahead.segments > 1:
            met = "as met so far" if one.status.waits_s else "Slurm's default, since none was met yet"
            told += f" with waits of {duration(ahead.wait_s)} between two ({met})"
    if one.ends_at is not None:
        told += f"; finished about {clock(one.ends_at)}, in {duration(one.ends_at - time.time())}"
    elif not one.needs_person and one.job is not None and one.job.is_pending:
        told += f"; {duration(ahead.total_s)} once it starts"
    return told


def _so_far(one: Shown) -> str:
    kept = one.status
    told = [f"{kept.segment} segment{'s' * (kept.segment != 1)}"]
    if kept.segment > 0:
        lost = kept.steps_lost
        told.append("steps lost unknown" if lost is None else f"{lost:,} step{'s' * (lost != 1)} lost")
    if kept.waits_s:
        waits = kept.waits_s
        told.append(f"{len(waits)} wait{'s' * (len(waits) != 1)} between segments, {duration(sum(waits))} in all")
    if kept.avoided_nodes:
        told.append(f"node {', '.join(kept.avoided_nodes)} avoided")
    return "; ".join(told)


def _use(one: Shown) -> str:
    told = f"{size(size_bytes(one.run_dir))} on disk"
    used, asked = one.status.peak_memory_bytes, one.memory_bytes
    if used is not None:
        of = f" of the {asked / 2**20:,.0f} that it asked for" if asked else ""
        told += f"; at most {used / 2**20:,.0f} MiB of memory{of}"
    return told
