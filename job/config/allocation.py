"""What a run asks of Slurm: plain values, checked wherever settings are; only the `slurm` package acts on them."""

import json
import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def minutes(time_limit: str) -> int:
    """A time limit as sbatch writes it, in minutes, seconds rounded up; raises ValueError.

    minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes, days-hours:minutes:seconds.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time_limit)
    if match is None:
        raise ValueError(
            "must be a time as sbatch writes it: minutes, hours:minutes:seconds or days-hours:minutes:seconds"
        )
    days, first, second, third = match.groups()
    if days is not None or third is not None:
        hours, mins, seconds = first, second, third
    else:
        hours, mins, seconds = "0", first, second
    total_s = ((int(days or 0) * 24 + int(hours)) * 60 + int(mins or 0)) * 60 + int(seconds or 0)
    if total_s == 0:
        raise ValueError("must be longer than 0: Slurm takes 0 for no limit at all")
    return math.ceil(total_s / 60)


def megabytes(memory: str) -> int:
    """Memory as sbatch writes it, in MiB: a number, of MiB unless K, M, G or T follows; raises ValueError."""
    match = re.fullmatch(r"(\d+)([KMGT]?)B?", memory.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError(f"must be memory as sbatch writes it, such as 4G or 900M, not {memory!r}")
    factor = {"K": 1 / 1024, "": 1, "M": 1, "G": 1024, "T": 1024**2}[match[2].upper()]
    return math.ceil(int(match[1]) * factor)


def _time_limit(text: str) -> str:
    minutes(text)
    return text


def _from_json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"must be JSON: {error}") from error


def _one_line(text: str | None) -> str | None:
    if text is not None and any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise ValueError("must not hold control characters or newlines")
    return text


def _gpus(text: str) -> str:
    if not re.fullmatch(r"(\w[\w.-]*:)?\d+(,(\w[\w.-]*:)?\d+)*", text):
        raise ValueError("must be a number of GPUs, 0 for none, or a type and a number, such as a100:1")
    return "0" if text.isdigit() and int(text) == 0 else text


def _cluster(text: str | None) -> str | None:
    if text is not None and (text == "all" or not re.fullmatch(r"[\w.-]+", text)):
        raise ValueError("must be the name of one cluster; SLURM_CLUSTERS of the shell counts as this setting")
    return text


Text = Annotated[str | None, AfterValidator(_one_line)]
Option = str | int | bool


class Allocation(BaseModel):
    """The AAE_SLURM_* settings; all may change between two submits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cluster: Annotated[str | None, AfterValidator(_cluster)] = Field(
        None,
        description="Cluster, where several stand behind one login node; SLURM_CLUSTERS of the shell counts as it.",
    )
    partition: Text = Field(None, description="Partition; by default the cluster's.")
    account: Text = Field(None, description="Account to charge.")
    qos: Text = Field(None, description="Quality of service.")
    time: Annotated[str, AfterValidator(_time_limit)] = Field(
        "24:00:00",
        description="Time limit of one segment, as sbatch writes it; the run goes on over as many as it needs.",
    )
    gpus: Annotated[str, BeforeValidator(str), AfterValidator(_gpus)] = Field(
        "1", description="GPUs of the node, as --gpus-per-node takes them, such as 1 or a100:1; 0 for none."
    )
    cpus_per_task: Annotated[int, Field(ge=1)] | None = Field(2, description="CPUs; none: the site's rule.")
    mem: Text = Field("4G", description="Memory of the node, as sbatch writes it; none: the site's rule.")
    max_mem: Text = Field(
        None,
        description="After an out-of-memory kill the restart asks for half more memory, up to this; none: for the same.",
    )
    constraint: Text = Field(None, description="Features that the node must have.")
    exclude: Text = Field(None, description="Nodes to avoid.")
    signal_delay_s: int = Field(
        120,
        ge=15,
        description="Seconds before the time limit at which Slurm is asked to warn; must hold a step and a save.",
    )
    max_stalls: int = Field(
        3,
        ge=1,
        description="Segments in a row without a new checkpoint, ended by a crash or the time limit, or exceptions at the "
        "same step, after which the run is no more started again by itself.",
    )
    setup: Annotated[list[Annotated[str, AfterValidator(_one_line)]], BeforeValidator(_from_json)] = Field(
        [], description="Shell lines to run on the node before the job, such as module loads: a JSON list."
    )
    srun: Annotated[dict[str, Option], BeforeValidator(_from_json)] = Field(
        {},
        description='Options for srun, such as a container\'s: a JSON object, such as {"container-image": "/sw/aae.sqsh"}.',
    )
    extra: Annotated[dict[str, Option], BeforeValidator(_from_json)] = Field(
        {}, description='Any other sbatch options: a JSON object, such as {"nice": 100, "exclusive": true}.'
    )

    @property
    def time_min(self) -> int:
        """The time limit in minutes."""
        return minutes(self.time)

    @model_validator(mode="after")
    def _may_grow(self) -> "Allocation":
        if self.max_mem is not None:
            if self.mem is None:
                raise ValueError("AAE_SLURM_MAX_MEM: needs a value of AAE_SLURM_MEM to grow from, which is none")
            if megabytes(self.max_mem) < megabytes(self.mem):
                raise ValueError(f"AAE_SLURM_MAX_MEM={self.max_mem}: must not be less than AAE_SLURM_MEM={self.mem}")
        return self

    @model_validator(mode="after")
    def _warned_in_time(self) -> "Allocation":
        if self.signal_delay_s >= self.time_min * 60:
            raise ValueError(
                f"AAE_SLURM_SIGNAL_DELAY_S={self.signal_delay_s}: must be less than the time limit, "
                f"AAE_SLURM_TIME={self.time}, {self.time_min * 60} s"
            )
        return self
