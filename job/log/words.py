"""A record of the log in words: as the job itself tells of it while it trains, and whoever watches it."""

from typing import Any

# What a `step` record is told by; one that lacks any of them is not told.
TOLD = (
    "reconstruction_loss",
    "discriminator_loss",
    "generator_loss",
    "d_prior",
    "d_code",
    "d_accuracy",
    "images_per_s",
)


def step_line(step: int, total_steps: int, record: dict[str, Any]) -> str:
    """How training goes, in a line; `record` is the newest `step` record, empty if there is none yet."""
    return f"step {step:,}/{total_steps:,}  {readings(record)}"


def readings(record: dict[str, Any], room: int = 1000) -> str:
    """The losses of a `step` record, as many of them as there is room for."""
    if not record:
        return "before the first log record"[: max(room, 0)]
    told = ""
    for part in (
        f"reconstruction {record['reconstruction_loss']:.4f}",
        f"discriminator {record['discriminator_loss']:.3f}",
        f"generator {record['generator_loss']:.3f}",
        f"D accuracy {record['d_accuracy']:.2f}",
        f"{record['images_per_s']:,.0f} images/s",
    ):
        longer = f"{told}  {part}" if told else part
        if len(longer) > room:
            break
        told = longer
    return told


def news(record: dict[str, Any]) -> str | None:
    """What has happened to a run, in words; None for a record of what comes all the time, such as a checkpoint."""
    get, at = record.get, f"at step {record['step']:,}"
    match record["event"]:
        case "started":
            return f"started on {get('host')}, {get('device')}"
        case "resumed":
            lost = f"; {get('steps_lost')} steps are done again" if get("steps_lost") else ""
            return f"went on {at} on {get('host')}; the last segment {get('previous')}{lost}"
        case "signal":
            return f"{get('signal')} {at}"
        case "stopped":
            return f"stopped {at}: {str(get('reason')).replace('_', ' ')}"
        case "saturation":
            return f"{str(get('verdict')).replace('_', ' ')} {at}: {get('reason')}"
        case "finished":
            return f"finished {at}"
        case "failed":
            return f"failed {at}: {get('error')}"
        case "warning":
            return f"warning {at}: {get('message')}"
    return None
