"""What a start is going to do: compared with what the run is, before anything is written."""

import errno
from dataclasses import dataclass

from job.config.settings import TOTAL, Settings
from job.config.settings_file import Record, read_record, recorded_settings
from job.config.sources import Configuration, variable
from job.data.datasets import check_dataset
from job.errors import UsageError
from job.rundir.directory import RunDir
from job.rundir.small_file import exists, is_folder, names_in
from job.rundir.status import read_status


@dataclass(frozen=True)
class Plan:
    """What a start is going to do, and where.

    `is_changed` tells that settings.json has to be written anew, `is_new` that there is none yet.
    """

    run_dir: RunDir
    record: Record
    settings: Settings
    is_changed: bool
    is_finished: bool
    is_new: bool = False


def plan_start(configuration: Configuration, *, needs_data: bool = True) -> Plan:
    """Compare what is asked with what the run is.

    Raises UsageError if it is another run, naming each difference, or if its data set is needed and not there, OSError if the
    run directory cannot be read now.
    """
    run_dir = RunDir(configuration.settings.run_dir)
    plan = _plan_against(run_dir, Record.of(configuration))
    if needs_data and not plan.is_finished:
        check_dataset(plan.settings.dataset, plan.settings.data_dir)
    return plan


def _plan_against(run_dir: RunDir, wanted: Record) -> Plan:
    stored = read_record(run_dir)
    if stored is None:
        _refuse_foreign_folder(run_dir)
        return Plan(
            run_dir, wanted, recorded_settings(wanted, run_dir), is_changed=True, is_finished=False, is_new=True
        )
    recorded, asked = recorded_settings(stored, run_dir), recorded_settings(wanted, run_dir)
    if wanted.sources.get("evaluate_every_steps") == "default":
        asked = asked.model_copy(update={"evaluate_every_steps": recorded.evaluate_every_steps})
    settings = _settings_on_resume(run_dir, recorded, asked)
    values = settings.model_dump(mode="json")
    record = stored
    if (values, wanted.slurm) != (stored.settings, stored.slurm):
        record = record.model_copy(update={"settings": values, "slurm": wanted.slurm, "sources": wanted.sources})
    if wanted.source_digest != stored.source_digest:
        record = record.model_copy(update={"source_digest": wanted.source_digest})
    return _plan(run_dir, record, settings, is_changed=record is not stored)


def plan_recorded(run_dir: RunDir) -> Plan:
    """Go on with a run as its settings.json says, whatever the environment holds; raises OSError if there is none, or not now."""
    record = read_record(run_dir)
    if record is None:
        raise FileNotFoundError(
            errno.ENOENT, "the settings of a submitted run are not there", str(run_dir.settings_file)
        )
    return _plan(run_dir, record, recorded_settings(record, run_dir), is_changed=False)


def _plan(run_dir: RunDir, record: Record, settings: Settings, *, is_changed: bool) -> Plan:
    status = read_status(run_dir)
    steps_done = status.step if status is not None else 0
    if settings.total_steps < steps_done:
        raise UsageError(
            f"{run_dir.path} has done {steps_done} steps, more than the {settings.total_steps} that "
            f"AAE_{'MAX_STEPS' if settings.max_steps else 'EPOCHS'} asks for; set it to at least that, "
            "or take another AAE_RUN_NAME"
        )
    is_finished = status is not None and status.state == "finished" and exists(run_dir.final_summary)
    ended_early = settings.stop_when_saturated and status is not None and status.reason == "saturated"
    return Plan(
        run_dir,
        record,
        settings,
        is_changed=is_changed,
        is_finished=is_finished and (ended_early or steps_done == settings.total_steps),
    )


def _settings_on_resume(run_dir: RunDir, stored: Settings, wanted: Settings) -> Settings:
    before = stored.model_dump(mode="json")
    differences = [
        f"  {variable(name)} is {before[name]} in {run_dir.settings_file.name}, now {value}"
        + ("; the learning rates fall over the whole run, so its length makes the weights" if name in TOTAL else "")
        for name, value in wanted.fixed.items()
        if value != before[name]
    ]
    if differences:
        raise UsageError(
            "\n".join(
                [
                    f"{run_dir.path} is a run with other settings; nothing was written",
                    *differences,
                    "set them as they were to go on with it, or take another AAE_RUN_NAME (or none) for a new run",
                ]
            )
        )
    # Filled in by the first start and kept, since another number of threads gives other sums.
    return wanted.model_copy(update={"num_threads": wanted.num_threads or stored.num_threads})


def _refuse_foreign_folder(run_dir: RunDir) -> None:
    if exists(run_dir.path) and not is_folder(run_dir.path):
        raise UsageError(f"{run_dir.path} is a file; take another AAE_RUNS_DIR or AAE_RUN_NAME")
    # Hidden ones are another submitter's, which is about to write the settings; a claim tells of a start that could not.
    foreign = any(name[0] != "." for name in names_in(run_dir.path))
    if foreign and not exists(run_dir.claim_file(1)):
        raise UsageError(
            f"{run_dir.path} holds files but no settings.json: it is no run directory; "
            "take another AAE_RUN_NAME, or move that folder away"
        )
