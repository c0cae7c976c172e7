"""`aae-slurm export`: a run's log for TensorBoard, which reads files of its own kind."""

import io
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from job.commandline import Parser, add_run, path
from job.errors import AaeError, UsageError
from job.log.reader import Damage, end_of_lines, merged_lines
from job.output import size, told_if_slow
from job.rundir.directory import RunDir
from job.rundir.find import run_around
from job.rundir.small_file import exists, is_folder, names_in

_MEASURED = ("step", "evaluation")  # the events with curves
_NO_CURVES = {"time", "event", "segment", "step", "num_images"}


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(
        "aae-slurm export",
        "Writes the records that count for TensorBoard, into DIR/<run>/: a curve for each figure of the `step` and `evaluation`\n"
        "records, and the lattices. Again: replaces what it wrote. Needs the package tensorboard, which is looked at with\n"
        "`tensorboard --logdir DIR`.",
        "aae-slurm export digits-2d-seed0-44136fa3 --tensorboard boards",
    )
    add_run(parser)
    parser.add_argument("--tensorboard", type=path, required=True, metavar="DIR", help="made if it is not there")
    options = parser.parse_args(arguments)
    run_dir: RunDir = options.run
    if not exists(run_dir.events_file):
        raise UsageError(f"{run_dir.path.name} has no log yet: {run_dir.events_file}")
    folder = options.tensorboard / run_dir.path.name
    if exists(folder) and not is_folder(folder):
        raise UsageError(f"--tensorboard {options.tensorboard}: {folder} is a file; give another folder")
    if (around := run_around(folder)) is not None:
        raise UsageError(f"--tensorboard {options.tensorboard} would write into the run {around}; give another folder")
    with told_if_slow(f"{run_dir.path.name}: reading its log of {size(end_of_lines(run_dir.events_file))}"):
        told = export(run_dir, folder)
    print(f"{told}: {folder}\nlook at it:\n  tensorboard --logdir {shlex.quote(str(options.tensorboard))}")
    return 0


def export(run_dir: RunDir, folder: Path) -> str:
    """Write the one file of a run; returns in words what is in it. Raises OSError, or AaeError without the library."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter
    except Exception as error:
        # Beside a protobuf or numpy that it was not made for it raises TypeError, AttributeError.
        why = str(error).partition("\n")[0]
        raise AaeError(
            f"export --tensorboard needs the package tensorboard ({why}): pip install --upgrade tensorboard"
        ) from error
    damage = Damage()
    counts = Counter[str]()
    folder.mkdir(parents=True, exist_ok=True)
    # Of one that was killed: TensorBoard would read it too.
    _remove(folder, r"\.events\.out\.tfevents\.\d{12}\.aae\.\w+\.tmp")
    num_bytes = end_of_lines(run_dir.events_file)
    # TensorBoard wants `tfevents` in a name, and one that looks on takes what has grown under a new name alone.
    name = f"events.out.tfevents.{num_bytes:012d}.aae"
    with RunDir(folder).replacing(folder / name) as file:
        writer = RecordWriter(file)
        writer.write(Event(file_version="brain.Event:2").SerializeToString())  # what TensorBoard reads first
        for _, record in merged_lines(run_dir.events_file, None, num_bytes, damage):
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in _points(record)]
            counts["points"] += len(values)
            if record["event"] == "lattice":
                picture = _picture(run_dir.lattice_file(int(record["step"])))
                counts["lattices" if picture else "missing"] += 1
                values += (
                    [Summary.Value(tag="lattice", image=Summary.Image(colorspace=1, **picture))] if picture else []
                )
            if values:
                time = datetime.fromisoformat(record["time"]).timestamp()
                event = Event(wall_time=time, step=int(record["step"]), summary=Summary(value=values))
                writer.write(event.SerializeToString())
    _remove(folder, rf"(?!{re.escape(name)})events\.out\.tfevents\.\d{{12}}\.aae")
    if counts["missing"]:
        print(
            f"note: lattices of the log that are gone or damaged, and left out: {counts['missing']:,}", file=sys.stderr
        )
    if (words := damage.words(run_dir.path)) is not None:
        print(f"note: {words}", file=sys.stderr)
    return f"{run_dir.path.name}: {counts['points']:,} points of curves, {counts['lattices']:,} lattices"


def _remove(folder: Path, pattern: str) -> None:
    for name in names_in(folder):
        if re.fullmatch(pattern, name):
            (folder / name).unlink(missing_ok=True)


def _points(record: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The figures of a record by name; of a list, each by its number. What is no number is left out."""
    if record["event"] not in _MEASURED:
        return
    for name, value in record.items():
        if name not in _NO_CURVES:
            for number, one in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if isinstance(one, int | float):
                    yield f"{record['event']}/{name}{'' if number is None else f'/{number}'}", one


def _picture(file: Path) -> dict[str, Any] | None:
    """A PNG as it is and its size in pixels, None if there is none that can be drawn."""
    from PIL import Image

    try:
        content = file.read_bytes()
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            image.verify()
            return {"width": image.width, "height": image.height, "encoded_image_string": content}
    except (OSError, SyntaxError, ValueError):  # the second is Pillow's for a broken PNG
        return None
