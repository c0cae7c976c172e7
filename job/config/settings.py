"""What a run is: one flat, frozen `Settings`, each field a variable `AAE_<NAME>` and a flag `--<name>`."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from job.config.recipes import Recipe
from job.data.datasets import NUM_TRAINING_IMAGES, Dataset
from job.machine import allotted_cpus

# May change on resume. Every other setting, also one that is added later, enters the weights and is fixed.
FREE = frozenset(
    {
        "runs_dir",
        "run_name",
        "data_dir",
        "device",
        "num_threads",
        "cuda_graph",
        "step_limit_s",
        "on_end",
        "log_every_steps",
        "checkpoint_every_s",
        "checkpoint_every_steps",
        "keep_checkpoints",
        "lattice_every_steps",
        "lattice_size",
        "lattice_extent",
        "lattice_mode",
        "recipe",
        "evaluate_every_steps",
        "stop_when_saturated",
        "saturation_windows",
        "saturation_confirmations",
        "saturation_slope_percent",
        "saturation_trend_p",
        "saturation_loss_band",
        "saturation_output_band",
        "saturation_energy",
        "saturation_c2st",
        "saturation_winning",
        "saturation_collapse",
    }
)
MIN_WINDOW_STEPS = 200  # by default: an epoch of a small data set takes a fast device no time at all
# What AAE_ON_END finds in its environment beside that of the run's process; no settings.
OF_AN_END = ("AAE_RUN_DIR", "AAE_STATE", "AAE_VERDICT")
# May grow on resume while the learning rates are constant; else they enter the weights, and are fixed.
TOTAL = frozenset({"epochs", "max_steps"})


def _absolute(path: Path) -> Path:
    if any(ord(c) < 32 or ord(c) == 127 for c in str(path)):
        raise ValueError("must not hold control characters or newlines")
    return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - unlike resolve(), keeps the user's symlinks


def _no_percent(path: Path) -> Path:
    if "%" in str(path):
        raise ValueError("must not hold '%': Slurm expands it in paths (%j and others)")
    return path


def checked_run_name(name: str | None) -> str | None:
    """A run's name as it is; raises ValueError if it cannot be one."""
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=-]{0,119}", name):
        raise ValueError("must be 1 to 120 of the characters A-Z a-z 0-9 . _ = - and start with a letter or digit")
    return name


def _auto_or_switch(value: Any) -> Any:
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    return words.get(value.lower(), value.lower()) if isinstance(value, str) else value


Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """All settings of a run; raises pydantic's ValidationError with every mistake at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runs_dir: Annotated[Path, AfterValidator(_absolute), AfterValidator(_no_percent)] = Field(
        Path("runs"), validate_default=True, description="Folder that holds the run directories; made absolute."
    )
    run_name: Annotated[str | None, AfterValidator(checked_run_name)] = Field(
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
    generator_eps: Rate = Field(
        1e-8,
        description="Adam's epsilon for the encoder when fooling: gradients well below it move the encoder less, so that it "
        "comes to rest where the discriminator cannot tell, instead of following noise.",
    )
    lr_schedule: Literal["constant", "cosine"] = Field(
        "constant", description="Learning rates over the run: as they are, or falling to 0 as half a cosine."
    )
    autoencoder_dropout: Share = Field(
        0.25, description="Share of hidden units dropped in the encoder and the decoder."
    )
    discriminator_dropout: Share = Field(0.20, description="Share of hidden units dropped in the discriminator.")
    code_noise: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Standard deviation of the noise on the codes that the decoder learns from, as a share of the codes' "
        "own: near codes come to stand for images that look alike; 0: none.",
    )
    r1_penalty: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Weight of R1, the discriminator's squared slope at prior samples (in units of the prior's std), which "
        "keeps it from winning and codes from circling; 0: none.",
    )
    ema_decay: Share = Field(
        0.0,
        description="Encoder and decoder that are drawn, measured and kept: exponential moving averages of those trained, "
        "with this weight on the past at each step; 0: those trained.",
    )
    recipe: Recipe = Field(
        "lecture", description="Named set of defaults, see Recipes; whatever is set otherwise wins over it."
    )
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
    step_limit_s: Rate | None = Field(
        None,
        description="Seconds that a step may take; a longer one ends the process, which comes back within its allowance; by "
        "default 20 times the slowest step seen, at least 600.",
    )
    on_end: str | None = Field(
        None,
        description="Shell command that is run once when the run is finished, has failed, or waits because Slurm refused to start "
        "its job again, with AAE_RUN_DIR, AAE_STATE and AAE_VERDICT set, for 60 s at most.",
    )
    cuda_graph: Annotated[Literal["auto", True, False], BeforeValidator(_auto_or_switch)] = Field(
        "auto",
        description="Record the step once as a CUDA graph and replay it, one launch in place of a hundred: auto and true do so "
        "on a GPU that gives the same bytes; true warns where there is none.",
    )
    log_every_steps: Count = Field(100, description="Steps between two `step` records.")
    lattice_every_steps: Count = Field(500, description="Steps between two lattices.")
    lattice_size: int = Field(10, ge=1, le=100, description="Codes on each side of the lattice.")
    lattice_extent: Rate = Field(
        1.0, description="Coordinate of the lattice's outermost codes, where the mode is `unit`."
    )
    lattice_mode: Literal["unit", "quantile"] = Field(
        "unit", description="Codes of the lattice: even steps over +-extent, or equal mass of the prior in each cell."
    )
    evaluate_every_steps: Annotated[int, Field(ge=2)] | None = Field(
        None,
        description="Steps between two evaluations, a window of the saturation verdict; by default an epoch, at least 200.",
    )
    stop_when_saturated: bool = Field(
        False, description="End the run, finished, half a window after the one that makes the verdict `saturated`."
    )
    saturation_windows: int = Field(
        10, ge=4, description="Windows over which the reconstruction must be flat; fewer mistake noise for rest."
    )
    saturation_confirmations: Count = Field(
        3, description="Windows in a row that must agree on a verdict; one alone may be chance."
    )
    saturation_slope_percent: Rate = Field(
        0.5,
        description="Flat: change of the reconstruction over those windows, in per cent, that no eye sees in a digit.",
    )
    saturation_trend_p: Share = Field(
        0.01,
        description="Flat too: chance of so clear a fall without a trend, above this; so slow progress is not cut off, while "
        "at 0.05 a run at rest often fails one of three windows.",
    )
    saturation_loss_band: Rate = Field(
        0.03, description="The discriminator cannot tell: its loss within this of 2 ln 2, nats; 0.03 is a JSD of 0.015."
    )
    saturation_output_band: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        0.05,
        description="It cannot tell: mean outputs within this of 0.5, accuracy at most this above; 4 sd of chance.",
    )
    saturation_energy: Rate = Field(
        0.005, description="Codes match: energy distance at most this, or what chance allows; a mean 0.09 off gives it."
    )
    saturation_c2st: Annotated[float, Field(gt=0.5, le=1)] = Field(
        0.55, description="Codes match too: accuracy of a fresh classifier at most this; 3 sd of chance."
    )
    saturation_winning: Annotated[float, Field(gt=0.5, le=1)] = Field(
        0.8, description="The discriminator is winning: accuracy above this; the encoder hardly learns from it then."
    )
    saturation_collapse: Rate = Field(
        0.1, description="Collapsed: smallest eigenvalue of the codes' covariance below this, in the prior's variance."
    )
    checkpoint_every_s: Rate = Field(60, description="Seconds of training between two checkpoints.")
    checkpoint_every_steps: Count | None = Field(
        None, description="Steps between two checkpoints, if that comes first."
    )
    keep_checkpoints: int = Field(
        3, ge=2, description="Newest checkpoints that are kept while a run trains; a finished one keeps its last."
    )

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

    def with_cpus(self) -> "Settings":
        """These settings with the CPUs allotted to this process where they name no number of threads."""
        return self if self.num_threads else self.model_copy(update={"num_threads": allotted_cpus()})

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch; the last partial batch is dropped."""
        return NUM_TRAINING_IMAGES[self.dataset] // self.batch_size

    @property
    def total_steps(self) -> int:
        """Optimiser steps in the whole run."""
        return self.max_steps or self.epochs * self.steps_per_epoch

    @property
    def window_steps(self) -> int:
        """Steps between two evaluations."""
        return self.evaluate_every_steps or max(MIN_WINDOW_STEPS, self.steps_per_epoch)

    @property
    def fixed(self) -> dict[str, Any]:
        """The settings that enter the weights, as JSON values; two runs with equal ones are the same run."""
        free = FREE if self.lr_schedule != "constant" else FREE | TOTAL
        return {k: v for k, v in self.model_dump(mode="json").items() if k not in free}

    @property
    def name(self) -> str:
        """The run's name: AAE_RUN_NAME, or one made from the fixed settings that differ from the defaults."""
        if self.run_name is not None:
            return self.run_name
        defaults = Settings().model_dump(mode="json")
        different = {k: v for k, v in self.fixed.items() if v != defaults[k]}
        digest = hashlib.sha256(json.dumps(different, sort_keys=True).encode()).hexdigest()[:8]
        return f"{self.dataset}-{self.latent_dim}d-seed{self.seed}-{digest}"

    @property
    def run_dir(self) -> Path:
        """Absolute path of the run directory."""
        return self.runs_dir / self.name
