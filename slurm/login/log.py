"""`aae-slurm log`: the records that count, as JSON lines or CSV, and new ones as they come."""

import contextlib
import csv as csv_module
import io
import os
import sys
from typing import Any, BinaryIO

import orjson

from job.commandline import Parser, add_run
from job.errors import UsageError
from job.log.events import EVENTS, Event
from job.log.reader import Damage, end_of_lines, is_of, merged_lines, parse
from job.output import escaped, rest
from job.rundir.directory import RunDir
from job.rundir.status import read_status

POLL_S = 0.5


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(
        "aae-slurm log",
        "Prints the records that count, one JSON object a line: those that a later segment did again are left out.",
        "aae-slurm log digits-2d-seed0-44136fa3 --event step --fields step,reconstruction_loss,d_accuracy --csv",
    )
    add_run(parser)
    parser.add_argument("--follow", action="store_true", help="go on with new records until the run ends")
    parser.add_argument("--event", metavar="NAME", help="only records of this event")
    parser.add_argument("--fields", metavar="a,b,c", help="only these keys, in this order, null where absent")
    parser.add_argument("--csv", action="store_true", help="comma-separated values with a header line")
    options = parser.parse_args(arguments)
    fields = options.fields.split(",") if options.fields else None
    print_log(options.run, event=options.event, fields=fields, csv=options.csv, follow=options.follow)
    return 0


def print_log(run_dir: RunDir, *, event: str | None, fields: list[str] | None, csv: bool, follow: bool) -> None:
    """Print to stdout; raises UsageError on an event that does not exist."""
    if event is not None and event not in EVENTS:
        raise UsageError(f"--event {event}: no such event; there are {', '.join(EVENTS)}")
    if csv and fields is None:
        models: list[type[Event]] = [EVENTS[event]] if event else list(EVENTS.values())
        fields = list(dict.fromkeys(name for model in models for name in model.model_fields))
    out = sys.stdout.buffer
    if csv:
        out.write(_row(fields or []))
    position = end_of_lines(run_dir.events_file)
    damage = Damage()
    for line, record in merged_lines(run_dir.events_file, event, position, damage):
        _print(out, line, record, fields, csv)
    out.flush()
    try:
        if follow:
            _follow(run_dir, out, position, event, fields, csv, damage)
    finally:
        if (words := damage.words(run_dir.path)) is not None:
            print(f"note: {words}", file=sys.stderr)


def _follow(
    run_dir: RunDir,
    out: BinaryIO,
    position: int,
    event: str | None,
    fields: list[str] | None,
    csv: bool,
    damage: Damage,
) -> None:
    """Print what comes after a position, the end of a line; whole lines only, so that one that is cut as torn is never seen."""
    while True:
        status = read_status(run_dir)
        ended = status is not None and status.state in ("finished", "failed", "cancelled")
        with contextlib.suppress(FileNotFoundError), run_dir.events_file.open("rb") as file:
            if file.seek(0, os.SEEK_END) < position:
                position = 0  # another file has taken its place
            file.seek(position)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                position += len(line)
                record = parse(line)
                if record is None:
                    damage(line)
                elif is_of(line, event):
                    _print(out, line, record, fields, csv)
            out.flush()
        if ended:
            return
        rest(POLL_S)


def _print(out: BinaryIO, line: bytes, record: dict[str, Any], fields: list[str] | None, csv: bool) -> None:
    if fields is not None:
        values = [record.get(name) for name in fields]
        line = _row(values) if csv else orjson.dumps(dict(zip(fields, values, strict=True))) + b"\n"
    out.write(escaped(line.decode(errors="backslashreplace")).encode())


def _row(values: list[Any]) -> bytes:
    text = io.StringIO()
    plain = [orjson.dumps(v).decode() if isinstance(v, dict | list) else v for v in values]
    csv_module.writer(text, lineterminator="\n").writerow(plain)
    return text.getvalue().encode()
