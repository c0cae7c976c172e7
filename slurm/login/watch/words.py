"""What is said of a watched run: the same sentences on a terminal and in plain lines."""

import shlex
import statistics
import time
from datetime import datetime

from job.commandline import clock, duration
from slurm.login.forecast import REQUEUE_S
from slurm.login.overview import STILL_S, counted
from slurm.login.states import Shown, heartbeat_age_s, progress_age_s
from slurm.login.watch.look import OLD_S, Look

_NEVER = "no sign of it yet"


def state_words(look: Look) -> str:
    """What a run is doing, in a sentence."""
    shown = look.shown
    if shown is None:
        return look.trouble or _NEVER
    if look.trouble is not None:
        return f"{look.trouble}; as it was {duration(time.monotonic() - look.trouble_s)} ago"
    status = shown.status
    if _waits_for_requeue(shown):
        left_s = _wait_left_s(look)
        when = f"in about {duration(left_s)}" if left_s > 0 else "any moment now"
        note = f"; {look.note}" if look.note and shown.pending_reason is None else ""  # the scheduler is away
        return f"requeued: Slurm starts it again {when}{_waits(shown)}{note}"
    if shown.pending_reason is not None:
        waited_s = _waited_s(look)
        since = f", for {duration(waited_s)}" if waited_s is not None else ""
        pending, colon, rest = look.note.partition(":")
        return f"{pending}{since}{colon}{rest}{_waits(shown)}"
    if shown.state == "lost" and look.note:
        return look.note
    if shown.state != "running":
        return "; ".join(filter(None, [status.verdict, look.note])) or _NEVER
    doing = "training" if status.progress_at is not None else "starting"
    where = f"{doing} on {status.host}" if status.host else doing
    return "; ".join(filter(None, [look.note or where, _silence(shown)]))


def _silence(shown: Shown) -> str:
    """That a run which should train shows no sign of it."""
    if (beat_s := heartbeat_age_s(shown.status)) > OLD_S:
        return f"no sign of life for {duration(beat_s)}"
    still_s = progress_age_s(shown.status) or 0.0
    return f"no step for {duration(still_s)}" if still_s > STILL_S else ""


def _waits_for_requeue(shown: Shown) -> bool:
    """Whether the job stands between two segments, as the run itself tells long before the scheduler is asked."""
    if shown.state != "waiting" or shown.needs_person or shown.pending_reason not in (None, "BeginTime"):
        return False
    return shown.pending_reason is not None or shown.status.reason in ("time_limit", "preemption", "requeue")


def _waits(shown: Shown) -> str:
    waits = shown.status.waits_s
    return f"; waits so far: {', '.join(map(duration, waits[-3:]))}" if waits else ""


def _wait_left_s(look: Look) -> float:
    """How much longer a requeued job waits, by the waits met so far."""
    if look.shown is None:
        return 0.0
    waits = look.shown.status.waits_s
    return max(0.0, (statistics.median(waits) if waits else REQUEUE_S) - max(0.0, heartbeat_age_s(look.shown.status)))


def _waited_s(look: Look) -> float | None:
    """How long the job has waited in the queue, None if that is not known."""
    submitted = look.job.submitted if look.job is not None else ""
    return max(0.0, time.time() - int(submitted)) if submitted.isdigit() else None


def end_words(look: Look) -> str:
    """When a run will be finished."""
    found = look.ahead
    if found is None:
        return "not known before it has trained a while"
    if found.steps <= 0:
        return "any moment now: all steps are done"
    total_s = found.total_s
    if look.shown is not None and _waits_for_requeue(look.shown):
        total_s += _wait_left_s(look)
    told = f"about {clock(time.time() + total_s)}, in {duration(total_s)}"
    return f"{told}, waits between segments counted" if found.segments > 1 else told


def segment_words(look: Look) -> str:
    """Which segment trains, of how many."""
    if look.shown is None or look.shown.status.segment == 0:
        return "none yet"
    segment = look.shown.status.segment
    found = look.ahead
    if found is None:
        return f"{segment}"
    all_of_them = segment + found.segments - (look.shown.status.state == "running")
    return f"{segment} of about {max(all_of_them, segment)}"


def limit_s(look: Look) -> float | None:
    """How much of its time the present allocation has left, None if that is not known."""
    status = look.shown.status if look.shown is not None else None
    if status is None or status.state != "running" or status.limit_at is None or look.ended:
        return None
    return max(0.0, datetime.fromisoformat(status.limit_at).timestamp() - time.time())


def verdict_words(look: Look) -> tuple[str, str]:
    """The verdict on saturation in one word, and in a sentence: of status.json while it trains, else of the log."""
    status = look.shown.status if look.shown is not None else None
    verdict = (status.saturation if status is not None else None) or look.course.verdict
    if status is None or verdict is None:
        return "none yet", ""
    word = verdict.replace("_", " ")
    sentence = (
        status.verdict
        if status.saturation is not None and status.state == "running" and status.verdict
        else look.course.reason
    )
    return word, sentence.removeprefix("not saturated yet: ").removeprefix(f"{word}: ")


def distance_words(look: Look) -> str | None:
    """Whether the energy distance is within its null band, None before the first evaluation."""
    if not look.course.evaluations:
        return None
    _, distance, band = look.course.evaluations[-1]
    return "within" if distance <= band else "outside"


def moment(time_of_record: str) -> str:
    """When a record was written, in local time, to the second, with the day if it is not today's."""
    then = datetime.fromisoformat(time_of_record).astimezone()
    return f"{then:%H:%M:%S}" if then.date() == datetime.now().date() else f"{then:%d %b %H:%M}"


def counts(looks: list[Look]) -> str:
    """How many runs of a sweep are in which state."""
    return counted(group(look) for look in looks)


def group(look: Look) -> str:
    """The state under which a run of a sweep is counted."""
    return "pending" if look.shown is not None and look.shown.pending_reason is not None else look.state


def following(looks: list[Look], sweep: str | None) -> list[str]:
    """The commands that come next when a watch has come to its end, or is left."""
    path = looks[0].run_dir.path
    name = shlex.quote(str(path if sweep is None else path.with_name(sweep)))
    if not all(look.ended for look in looks):
        return [f"aae-slurm watch {name}"]
    needy = [look for look in looks if look.needs_person]
    if needy:
        asked = needy[0].shown.next if needy[0].shown is not None else None
        return [f"aae-slurm status {name}{' --runs' if sweep else ''}", *([asked] if asked else [])]
    if any(look.state == "cancelled" for look in looks):
        return [f"aae-slurm status {name}{' --runs' if sweep else ''}"]
    return [
        f"aae-slurm collect {name} results",
        *([f"aae-slurm compare {name}"] if sweep else [f"aae-job evaluate {name}"]),
    ]
