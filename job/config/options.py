"""Which options of sbatch and srun may be given beside the settings: none that has a setting, and none that a run lives by."""

from collections.abc import Mapping

from job.config.allocation import Allocation, Option

# Options with a setting of their own, and those of the same meaning: the field, and what sbatch(1) calls it.
_SET_BY = {
    "partition": ("partition", "p"),
    "cluster": ("clusters", "M"),
    "account": ("account", "A"),
    "qos": ("qos", "q"),
    "time": ("time", "t"),
    "gpus": ("gpus-per-node", "gpus", "G", "gpus-per-task", "gpus-per-socket", "gres", "tres-per-task", "tres-per-job"),
    "cpus_per_task": ("cpus-per-task", "c", "cpus-per-gpu"),
    "mem": ("mem", "mem-per-cpu", "mem-per-gpu"),
    "constraint": ("constraint", "C"),
    "exclude": ("exclude", "x"),
    "signal_delay_s": ("signal",),
}
# What stopping, saving and coming back, or the answer to a submit, depend on.
_LIVED_BY = (
    *("requeue", "no-requeue", "output", "o", "error", "e", "input", "i", "array", "a", "open-mode", "no-shell"),
    *("nodes", "N", "ntasks", "n", "ntasks-per-node", "ntasks-per-core", "ntasks-per-socket", "ntasks-per-gpu"),
    *("test-only", "wait", "W", "wrap", "parsable", "help", "usage", "version", "V"),
)
_SRUN_LIVED_BY = (
    *("ntasks", "n", "nodes", "N", "ntasks-per-node", "ntasks-per-core", "ntasks-per-socket", "ntasks-per-gpu"),
    *("output", "o", "error", "e", "export", "test-only", "pty", "multi-prog", "help", "usage", "version", "V"),
)


def mistakes_in_options(allocation: Allocation) -> list[str]:
    """What AAE_SLURM_EXTRA and AAE_SLURM_SRUN may not hold, a sentence for each mistake; runs recorded before are not asked."""
    owners = {option: field for field, options in _SET_BY.items() for option in options}
    off = {
        field for field, value in allocation.model_dump().items() if value is None or (field == "gpus" and value == "0")
    }
    return [
        *_mistakes("AAE_SLURM_EXTRA", allocation.extra, owners, off & {"gpus", "cpus_per_task", "mem"}, _LIVED_BY),
        *_mistakes("AAE_SLURM_SRUN", allocation.srun, {"cpus-per-task": "cpus_per_task"}, set(), _SRUN_LIVED_BY),
    ]


def _mistakes(
    variable: str, options: Mapping[str, Option], owners: Mapping[str, str], off: set[str], lived_by: tuple[str, ...]
) -> list[str]:
    mistakes = []
    seen: dict[str, str] = {}
    for key, value in options.items():
        name = key.replace("_", "-")
        said = f'{variable}={{"{key}": {value!r}}}: '
        if not name or not name.replace("-", "").isalnum() or name.startswith("-") or not name.isascii():
            mistakes.append(f"{said}not the name of an option; write it as in its manual, without the dashes before it")
        elif any(ord(c) < 32 or ord(c) == 127 for c in str(value)):
            mistakes.append(f"{said.encode('unicode_escape').decode()}must not hold control characters or newlines")
        elif name in seen:
            mistakes.append(f"{said}is there twice, as {seen[name]!r} too")
        elif meant := _meant(name, owners):
            field = owners[meant]
            if field not in off:
                mistakes.append(f"{said}has a setting of its own, AAE_SLURM_{field.upper()}: set that")
        elif meant := _meant(name, lived_by):
            mistakes.append(f"{said}--{meant} is what a run depends on to stop, save and come back; leave it out")
        seen[name] = key
    return mistakes


def _meant(name: str, known: Mapping[str, str] | tuple[str, ...]) -> str | None:
    """The option that a name stands for: itself or, as getopt takes it, one that it begins."""
    if name in known:
        return name
    return next((option for option in known if len(name) > 1 and option.startswith(name)), None)
