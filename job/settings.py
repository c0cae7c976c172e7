"""What a run is: one flat, frozen `Settings`, each field a variable `AAE_<NAME>` and a flag `--<name>`."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from job.datasets import NUM_TRAINING_IMAGES, Dataset

# May change on resume. Every other setting, also one that is added later, enters the weights and is fixed.
FREE = frozenset(
    {
        "runs_dir",
        "run_name",
        "data_dir",
        "device",
        "num_threads",
        "cuda_graph",
        "log_every_steps",
        "checkpoint_every_s",
        "checkpoint_every_steps",
        "keep_checkpoints",
        "lattice_every_steps",
        "lattice_size",
        "lattice_extent",
    }
)
# May grow on resume while the learning rates are constant.
TOTAL = frozenset({"epochs", "max_steps"})


def _absolute(path: Path) -> Path:
    if any(ord(c) < 32 or ord(c) == 127 for c in str(path)):
        raise ValueError("must not hold control characters or newlines")
    return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - unlike resolve(), keeps the user's symlinks


def _no_percent(path: Path) -> Path:
    if "%" in str(path):
        raise ValueError("must not hold '%': Slurm expands it in paths (%j and others)")
    return path


def _run_name(name: str | None) -> str | None:
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=-]{0,119}", name):
        raise ValueError("must be 1 to 120 of the characters A-Z a-z 0-9 . _ = - and start with a letter or digit")
    return name


Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """All settings of a run; raises pydantic's ValidationError with every mistake at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runs_dir: Annotated[Path, AfterValidator(_absolute), AfterValidator(_no_percent)] = Field(
        Path("runs"), validate_default=True, description="Folder that holds the run directories; made absolute."
    )
    run_name: Annotated[str | None, AfterValidator(_run_name)] = Field(
        None, description="Name of the run directory; by default made from the settings, without a time."
    )
    dataset: Dataset = Field("digits", description="What to train on; `digits` is embedded, the others need `fetch`.")
    data_dir: Annotated[Path, AfterValidator(_absolute)] = Field(
        Path("data"), validate_default=True, description="torchvision's root folder of the data sets; made absolute."
    )
    latent_dim: int = Field(2, ge=2, description="Dimensions of the code.")
    hidden_dim: Count = Field(1000, description="Units in each of the two hidden layers of each network.")
    prior_std: Rate = Field(1.0, description="Standard deviation of the Gaussian prior, in every dimension.")
    batch_size: Count = Field(100, description="Images in a step.")
    encoder_lr: Rate = Field(1e-4, description="Adam's learning rate for the encoder when reconstructing.")
    decoder_lr: Rate = Field(1e-4, description="Adam's learning rate for the decoder.")
    generator_lr: Rate = Field(5e-5, description="Adam's learning rate for the encoder when fooling the discriminator.")
    discriminator_lr: Rate = Field(5e-5, description="Adam's learning rate for the discriminator.")
    epochs: Count = Field(30, description="Passes over the training images.")
    max_steps: Count | None = Field(None, description="Total optimiser steps; wins over epochs.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the weights, the batches, the dropout and the prior.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where to train; auto takes a GPU if there is one."
    )
    precision: Literal["float32", "tf32", "bfloat16"] = Field(
        "float32", description="Precision of the matrix products (tf32: GPU only); weights and losses stay float32."
    )
    num_threads: Count | None = Field(None, description="CPU threads; by default the CPUs allotted to the process.")
    deterministic: bool = Field(True, description="Use only deterministic algorithms, so that a resume is exact.")
    cuda_graph: bool = Field(
        False, description="On a GPU, record the step once as a CUDA graph and replay it; where it cannot be, warn."
    )
    log_every_steps: Count = Field(100, description="Steps between two `step` records.")
    lattice_every_steps: Count = Field(500, description="Steps between two lattices.")
    lattice_size: int = Field(10, ge=1, le=100, description="Codes on each side of the lattice.")
    lattice_extent: Rate = Field(1.0, description="Coordinate of the lattice's outermost codes.")
    checkpoint_every_s: Rate = Field(60, description="Seconds of training between two checkpoints.")
    checkpoint_every_steps: Count | None = Field(
        None, description="Steps between two checkpoints, if that comes first."
    )
    keep_checkpoints: int = Field(3, ge=2, description="Newest checkpoints that are kept.")

    @model_validator(mode="after")
    def _batch_fits(self) -> "Settings":
        if self.batch_size > NUM_TRAINING_IMAGES[self.dataset]:
            raise ValueError(
                f"AAE_BATCH_SIZE={self.batch_size}: {self.dataset} has only "
                f"{NUM_TRAINING_IMAGES[self.dataset]} training images; take a smaller batch"
            )
        return self

    @model_validator(mode="after")
    def _device_has_precision(self) -> "Settings":
        if self.precision == "tf32" and self.device == "cpu":
            raise ValueError("AAE_PRECISION=tf32: only a GPU has it, and AAE_DEVICE=cpu; take float32 or bfloat16")
        return self

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch; the last partial batch is dropped."""
        return NUM_TRAINING_IMAGES[self.dataset] // self.batch_size

    @property
    def total_steps(self) -> int:
        """Optimiser steps in the whole run."""
        return self.max_steps or self.epochs * self.steps_per_epoch

    @property
    def fixed(self) -> dict[str, Any]:
        """The settings that enter the weights, as JSON values; two runs with equal ones are the same run."""
        return {k: v for k, v in self.model_dump(mode="json").items() if k not in FREE | TOTAL}

    @property
    def name(self) -> str:
        """The run's name: AAE_RUN_NAME, or one made from the fixed settings that differ from the defaults."""
        if self.run_name is not None:
            return self.run_name
        defaults = Settings().fixed
        different = {k: v for k, v in self.fixed.items() if v != defaults[k]}
        digest = hashlib.sha256(json.dumps(different, sort_keys=True).encode()).hexdigest()[:8]
        return f"{self.dataset}-{self.latent_dim}d-seed{self.seed}-{digest}"

    @property
    def run_dir(self) -> Path:
        """Absolute path of the run directory."""
        return self.runs_dir / self.name
