"""The verdict of a run, with the numbers behind it and what each would have to be."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from job.config.settings import Settings
from job.log.course import Course

WORDS = {
    "not_yet": "not saturated yet",
    "saturated": "saturated",
    "discriminator_winning": "the discriminator is winning",
    "false_saturation": "false saturation",
    "collapsed": "collapsed",
}
_NAMES = {
    "reconstruction_bce": ("Reconstruction, BCE a pixel in nats", ".4f"),
    "reconstruction_slope_percent": ("Its slope over the last windows, %", "+.2f"),
    "reconstruction_trend_p": ("Chance of so clear a fall without a trend", ".3f"),
    "discriminator_loss": ("Discriminator loss, nats", ".3f"),
    "d_accuracy": ("Share that the discriminator tells right", ".3f"),
    "d_prior": ("D(prior)", ".3f"),
    "d_code": ("D(code)", ".3f"),
    "energy_distance": ("Energy distance of codes and prior", ".4f"),
    "c2st_accuracy": ("Share that a fresh classifier tells right", ".3f"),
    "smallest_eigenvalue": ("Smallest eigenvalue of the codes' covariance", ".3f"),
}


@dataclass(frozen=True)
class Figure:
    """A number behind the verdict: its name, its value and the step it is of, and what it is at rest, in words."""

    name: str
    value: str
    step: int
    at_rest: str


def figures(settings: dict[str, Any], course: Course, newest: Mapping[str, Any]) -> list[Figure]:
    """The newest numbers that are known; `newest` are those that status.json keeps, with the step that they are of."""
    known: dict[str, tuple[float, int]] = {}
    records = [record for record in (course.last.get("saturation"), course.last.get("evaluation"), newest) if record]
    for record in sorted((one for one in records if _is_number(one.get("step"))), key=lambda one: one["step"]):
        eigenvalues = record.get("code_cov_eigenvalues") or []
        values = {"smallest_eigenvalue": min(eigenvalues)} if _are_numbers(eigenvalues) else {}
        values |= {name: value for name in (*_NAMES, "energy_distance_q99") if _is_number(value := record.get(name))}
        known |= {name: (value, record["step"]) for name, value in values.items()}
    at_rest = _at_rest(settings, known.get("energy_distance_q99", (0.0, 0))[0])
    return [
        Figure(label, f"{known[name][0]:{form}}", known[name][1], at_rest[name])
        for name, (label, form) in _NAMES.items()
        if name in known
    ]


def _at_rest(settings: dict[str, Any], null: float) -> dict[str, str]:
    limits = {name: f.default for name, f in Settings.model_fields.items() if name.startswith("saturation_")}
    limits |= {name: value for name, value in settings.items() if name in limits and _is_number(value)}
    band = limits["saturation_output_band"]
    outputs = f"within {band:g} of 0.5"
    energy = max(null, limits["saturation_energy"])
    return {
        "reconstruction_bce": "flat, lower is better",
        "reconstruction_slope_percent": f"within {limits['saturation_slope_percent']:g}",
        "reconstruction_trend_p": f"above {limits['saturation_trend_p']:g}",
        "discriminator_loss": f"within {limits['saturation_loss_band']:g} of {2 * math.log(2):.3f}, 2 ln 2",
        "d_accuracy": f"at most {0.5 + band:g}",
        "d_prior": outputs,
        "d_code": outputs,
        "energy_distance": f"at most {energy:.4f} in the median; 99 % of equal samples are below {null:.4f}",
        "c2st_accuracy": f"at most {limits['saturation_c2st']:g} in the median",
        "smallest_eigenvalue": f"above {limits['saturation_collapse']:g}; 1 if they match",
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(map(_is_number, values))
