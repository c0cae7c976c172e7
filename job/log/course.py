"""How a run has gone, out of its log in one reading: the curves, where it was resumed, and the verdicts."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from job.log.reader import merged_records
from job.log.series import Marks, Series

_CURVES = {
    "step": ("reconstruction_loss", "discriminator_loss", "generator_loss", "d_prior", "d_code", "d_accuracy"),
    "evaluation": ("reconstruction_bce", "energy_distance", "energy_distance_q99"),
}


@dataclass
class Course:
    """What is drawn and told of a log: its curves by field, where it was resumed, the verdicts, the last record of each event."""

    curves: dict[str, Series] = field(
        default_factory=lambda: {name: Series() for of in _CURVES.values() for name in of}
    )
    resumes: Marks = field(default_factory=Marks)
    verdicts: Marks = field(default_factory=Marks)
    last: dict[str, dict[str, Any]] = field(default_factory=dict)
    last_step: int = 0

    def take(self, record: dict[str, Any]) -> None:
        """Take the next record that counts."""
        step, event = record["step"], record["event"]
        for name in _CURVES.get(event, ()):
            self.curves[name].add(step, record.get(name))
        if event == "resumed":
            self.resumes.add(record.get("from_step", step), None)
        elif event == "saturation":
            self.verdicts.add(step, str(record.get("verdict")))
        self.last[event] = record
        self.last_step = max(step, self.last_step)


def read_course(path: Path) -> Course:
    """The course of a run by its log; raises OSError."""
    course = Course()
    for record in merged_records(path):
        course.take(record)
    return course
