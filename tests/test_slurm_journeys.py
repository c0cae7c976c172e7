"""Runs that meet all that can happen to a job on a real Slurm, and end with the bytes of a run that nothing interrupts."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
from cluster import Cluster, parent_of, sleeps, wait_until_still
from jobs import IN_AN_HOUR, INTERVAL, LOGGED, Job, SlurmJob
from journey import ENDLESS, Journey
from test_watchdog import HANGING

from job.rundir.cancel import CancelMark
from job.rundir.status import iso, now

pytestmark = pytest.mark.timeout(900)


def _preempt(journey: Journey, cluster: Cluster, then: str) -> None:
    """Fill both nodes with a job of a higher partition for a moment; the run's job waits in another partition meanwhile."""
    cluster.ask("sbatch", "-p", "high", "-N2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 2")
    journey.go_on(until_signalled=True)
    cluster.wait_for_state(journey.job_id, "PENDING")
    cluster.ask("scontrol", "update", f"JobId={journey.job_id}", f"Partition={then}")


@pytest.mark.waits(90)
def test_signals_preemptions_requeues_and_cancels(job: SlurmJob, tmp_path: Path) -> None:
    """No step is lost to any of them, and no end of a person's is undone; from the first submit to the results."""
    job.draw()
    journey, cluster = Journey(job, tmp_path), job.cluster
    journey.submit()
    for words in (
        str(job.run_dir.path),
        f"job {journey.job_id}",
        "aae-slurm watch",
        "aae-slurm status",
        "aae-slurm cancel",
    ):
        assert words in job.output

    with journey.stage("SIGUSR2 while torch is loaded, before any handler can be there"):
        deadline = time.monotonic() + 150
        while not job.job_log():  # submitit's first line: Python has begun
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not job.events("started")
        cluster.ask("scancel", "--signal=USR2", journey.job_id)
        journey.rest()
        assert job.reasons() == ["time_limit"]
        shown = job.shown()
        assert (shown["state"], shown["job_id"], shown["needs_person"]) == ("running", journey.job_id, False)

    with journey.stage("a status while no scheduler answers"):
        conf = job.environment["SLURM_CONF"]
        job.environment["SLURM_CONF"] = str(tmp_path / "no-such.conf")
        began = time.monotonic()
        assert job.slurm("status", "small") == 0, job.output
        assert time.monotonic() - began < 20  # on a busy machine a command takes some seconds to start
        assert "running" in job.output
        assert "squeue does not answer" in job.output
        job.environment["SLURM_CONF"] = conf

    with journey.stage("a submit through a link, which finds the job, and a copy, which is a run of its own"):
        runs_dir = job.run_dir.path.parent
        link = tmp_path / "link"
        link.symlink_to(runs_dir)
        assert job.submit(max_steps=ENDLESS, runs_dir=link) == journey.job_id
        assert "it has already" in job.output
        shutil.copytree(job.run_dir.path, runs_dir / "copy")
        assert job.slurm("status", "copy") == 1
        assert "lost" in job.output
        copy = Job(runs_dir, {k: v for k, v in job.environment.items() if k.startswith("AAE_")}, "copy")
        assert copy.run(run_name="copy", max_steps=copy.status()["step"] + 300) == 0, copy.output
        assert "waiting up to" not in copy.output
        assert job.slurm("cancel", "copy") == 0
        assert cluster.state(journey.job_id) == "RUNNING"

    with journey.stage("a SIGTERM that is no end"):
        cluster.ask("scancel", "--signal=TERM", journey.job_id)
        journey.train_on()
        assert job.events("signal")[-1]["signal"] == "SIGTERM"
        assert job.status()["segment"] == journey.segment
        assert len(job.reasons()) == 1

    with journey.meets("three signals, before, during and after the save: one stop", "time_limit") as process:
        os.kill(process, signal.SIGUSR2)
        journey.go_on()
        for _ in range(2):
            time.sleep(0.03)
            if not sleeps(process):
                os.kill(process, signal.SIGUSR2)

    # Without a grace time Slurm's view of the job is that of an operator's requeue.
    with journey.meets("preempted, requeued by Slurm at once", "requeue"):
        _preempt(journey, cluster, then="grace")
    with journey.meets("preempted, in a grace time", "preemption"):
        _preempt(journey, cluster, then="cancel")
    with journey.meets("preempted by a cancel", "preemption"):
        _preempt(journey, cluster, then="low")

    with journey.stage("aae-slurm cancel of a running job"):
        cancelling = job.start("cancel", str(link / "small"), module="slurm")
        journey.go_on(until_signalled=True)
        assert job.wait(cancelling) == 0, job.output
        assert "cancelled at step" in job.output
        cluster.wait_for_state(journey.job_id, "CANCELLED")
        assert job.reasons()[-1] == "cancel"
        assert job.slurm("cancel", "small") == 0
        assert "already" in job.output

    with journey.stage("aae-slurm cancel of a pending job"):
        journey.submit(slurm_extra=IN_AN_HOUR)
        assert job.shown()["state"] == "waiting"
        assert job.slurm("cancel", "small") == 0, job.output
        assert (cluster.state(journey.job_id), job.status()["state"]) == ("CANCELLED", "cancelled")

    with journey.stage("a raw scancel, which is not undone"):
        first = journey.job_id
        journey.submit()
        assert journey.job_id != first
        journey.rest()
        assert journey.lost() == 0
        cluster.ask("scancel", journey.job_id)
        journey.go_on(until_signalled=True)
        assert cluster.wait_for_state(journey.job_id, "CANCELLED") == "CANCELLED"
        time.sleep(7)  # longer than a requeue takes
        assert cluster.state(journey.job_id) == "CANCELLED"
        assert (job.reasons()[-1], job.shown()["state"]) == ("cancel", "cancelled")

    journey.finish(300, on_end="kill -STOP $PPID")  # once its end is on record
    watching = job.start("watch", "small", module="slurm")
    journey.rest()
    with journey.meets("an operator's requeue", "requeue", until_signalled=True):
        cluster.ask("scontrol", "requeue", journey.job_id)

    with journey.stage("a requeue while the run finishes: it is not trained twice"):
        journey.go_on()
        journey.wait_for_state("finished")
        wait_until_still(job.process())
        before = job.run_dir.events_file.read_bytes()
        cluster.ask("scontrol", "requeue", journey.job_id)  # Slurm's SIGCONT beside its SIGTERM wakes it
        job.wait_until_finished(journey.job_id)
        assert "finished already" in job.job_log()
        assert job.run_dir.events_file.read_bytes() == before

    with journey.stage("whoever watches is told of pause and end"):
        assert job.wait(watching) == 0, job.output
        for words in (
            "requeued: Slurm starts it again",
            "went on at step",
            f"running, job {journey.job_id}, segment {journey.segment}",
            "finished, job",
        ):
            assert words in job.output, job.output
    assert job.lost() == [0] * (journey.segment - 1)
    journey.compare()
    _results_are_there(job, tmp_path / "kept")


def _results_are_there(job: SlurmJob, out: Path) -> None:
    """A finished run says so everywhere, and can be collected."""
    assert (job.shown()["state"], job.slurm("status", "small")) == ("finished", 0)
    assert job.slurm("submit", max_steps=job.status()["step"]) == 0
    assert "finished already" in job.output
    assert job.slurm("submit", "--json", max_steps=job.status()["step"]) == 0
    told = orjson.loads(job.output)
    assert (told["run_dir"], told["state"], told["is_new"]) == (str(job.run_dir.path), "finished", False)
    assert job.slurm("log", "small", "--event", "step", "--fields", "step,nothing", "--csv") == 0
    assert job.output.splitlines()[:2] == ["step,nothing", "20,"]
    assert job.slurm("collect", "small", str(out)) == 0, job.output
    files = orjson.loads((out / "small" / "manifest.json").read_bytes())["files"]
    tables = {"metrics.csv", "evaluations.csv"}
    assert {"weights.safetensors", "lattices.gif", "report.html", "settings.json", "curves.png"} | tables <= set(files)
    assert len((out / "small" / "metrics.csv").read_text().splitlines()) == 1 + job.status()["step"] // LOGGED
    assert (out / "small" / "curves.png").stat().st_size > 10_000


@pytest.mark.waits(35)
def test_preemptions_by_sigusr2(tmp_path: Path, signalling_cluster: Cluster) -> None:
    """With preempt_send_user_signal: at once, no step lost, and told apart from a time limit.

    Spaces, quotes, dollars, a leading dash and non-ASCII letters in AAE_RUNS_DIR survive sbatch, srun and submitit.
    """
    folder = tmp_path / "-dash, space, quote'\"$HOME`x` üñï;b&c|d"
    folder.mkdir()
    journey = Journey(SlurmJob(folder, signalling_cluster), folder)
    journey.submit(slurm_partition="grace")
    journey.rest()
    with journey.meets("in a grace time", "preemption"):
        _preempt(journey, signalling_cluster, then="low")
    with journey.meets("without a grace time", "preemption"):
        _preempt(journey, signalling_cluster, then="low")
    with journey.stage("a stop before the end"):
        signalling_cluster.ask("scancel", journey.job_id)
        journey.go_on(until_signalled=True)
        signalling_cluster.wait_for_state(journey.job_id, "CANCELLED")
    journey.finish()
    journey.compare()


def _sruns(job: SlurmJob) -> list[int]:
    """The processes of srun of a job, none if it is dead."""
    command = ["pgrep", "-f", f"^srun .*_submit.{job.run_dir.slurm}"]
    return [int(pid) for pid in subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()]


def _srun(job: SlurmJob) -> tuple[int, int]:
    """The srun of a running job, and the watchdog that it has forked, which has Slurm kill the task if srun is killed."""
    processes = _sruns(job)
    (watchdog,) = [pid for pid in processes if parent_of(pid) in processes]
    (srun,) = [pid for pid in processes if pid != watchdog]
    return srun, watchdog


def _ends_after(job: SlurmJob, segment: int) -> list[str]:
    """Why the segments from one on have ended."""
    ends = [r for r in job.records() if r["event"] in ("failed", "stopped") and r["segment"] >= segment]
    return [record["reason"] for record in ends]


@pytest.mark.waits(80)
def test_deaths_of_the_task_and_of_srun(job: SlurmJob, tmp_path: Path) -> None:
    """At any moment: on record each time, started again by the batch script, and at most one interval lost."""
    journey = Journey(job, tmp_path)

    def kill_at_start(victim: str) -> None:
        pattern = f"^{victim}_submit.{job.run_dir.slurm}"
        journey.at_next_start(f"(until pkill -KILL -f '{pattern}'; do sleep 0.02; done) 2>/dev/null &")

    with journey.stage("Python killed before the task could claim the run"):
        kill_at_start("[^ ]*python[^ ]* -P .*")
        journey.submit()
        journey.rest()
        assert _ends_after(job, 1) == ["killed"]

    with journey.meets("srun killed, whose task may come to life behind it", "time_limit") as process:
        before = journey.segment
        kill_at_start("srun .*")
        os.kill(process, signal.SIGUSR2)
    while not _sruns(job):  # on a busy machine that task may have come to its first steps: Slurm ends it
        journey.go_on()
        journey.rest()
    assert _ends_after(job, before)[:2] in (["time_limit", "killed"], ["time_limit", "requeue"])

    num_failed = len(job.events("failed"))
    with journey.killed("SIGKILL") as process:
        os.kill(process, signal.SIGKILL)
    (failed,) = job.events("failed")[num_failed:]
    assert (failed["reason"], failed["exit_code"]) == ("killed", 137)
    assert "SIGKILL" in failed["error"]
    assert failed["peak_memory_bytes"] > 2**26
    resumed = job.events("resumed")[-1]
    assert resumed["previous"] == "was killed"
    assert resumed["seconds_lost"] >= 0

    before = journey.segment
    with journey.stage(
        "the death of srun: its watchdog has Slurm kill the task at once, if the batch script is not quicker"
    ):
        journey.train_on(INTERVAL)
        os.kill(_srun(job)[0], signal.SIGKILL)
        journey.go_on(until_signalled=True)
        journey.rest()
        assert _ends_after(job, before) in (["killed"], ["requeue"])
        assert 0 <= journey.lost() <= INTERVAL + LOGGED

    num_failed = len(job.events("failed"))
    with journey.meets(
        "a task that outlives srun: Slurm ends it with the batch script", "requeue", until_signalled=True
    ):
        srun, watchdog = _srun(job)
        os.kill(watchdog, signal.SIGSTOP)  # or it would be quicker than the second SIGKILL
        os.kill(srun, signal.SIGKILL)
        os.kill(watchdog, signal.SIGKILL)
    assert len(job.events("failed")) == num_failed, "no crash is on record"

    with journey.stage("killed while it is being cancelled, before it sees the mark: it does not come back"):
        CancelMark(job_id=journey.job_id, host=None, pid=None, time=now()).leave(job.run_dir)
        os.kill(job.process(), signal.SIGKILL)
        assert job.cluster.wait_for_state(journey.job_id, "FAILED", "COMPLETED") == "FAILED"
        time.sleep(7)  # longer than a requeue takes
        assert job.cluster.state(journey.job_id) == "FAILED"
        assert job.slurm("cancel", "small") == 0, job.output
        assert job.status()["state"] == "cancelled"

    journey.finish()
    journey.compare()


@pytest.mark.waits(130)
def test_what_fails_around_a_job(job: SlurmJob, tmp_path: Path) -> None:
    """A controller that is away, a node that is lost, a torn installation, no scontrol, a step that hangs."""
    journey, cluster = Journey(job, tmp_path), job.cluster
    journey.submit(slurm_max_stalls=2)
    journey.rest()

    with journey.meets("a controller that is absent while the job wants to be requeued", "time_limit") as process:
        cluster.stop_controller()
        os.kill(process, signal.SIGUSR2)
        journey.go_on()
        try:
            deadline = time.monotonic() + 120
            while job.status()["state"] != "waiting":
                assert time.monotonic() < deadline
                time.sleep(0.2)
            time.sleep(15)  # scontrol itself tries for ten
        finally:
            cluster.start_controller()

    with journey.killed("a node that is lost: Slurm starts the job on the other one, and no allowance is used"):
        node = cluster.ask("squeue", "-h", "-j", journey.job_id, "-o", "%N")
        cluster.kill_node(node, journey.job_id)
    try:
        assert cluster.ask("squeue", "-h", "-t", "all", "-j", journey.job_id, "-o", "%N") != node
        assert "ended by Slurm" in job.events("resumed")[-1]["previous"]
        assert job.events("failed") == []
    finally:
        cluster.start_node(node)

    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "torch.py").write_text("raise RuntimeError('torn installation')\n")
    with journey.meets("a torch that cannot be loaded at one start, as while it is replaced", "time_limit") as process:
        journey.at_next_start(f"export PYTHONPATH={tmp_path}/torn:$PYTHONPATH")
        os.kill(process, signal.SIGUSR2)
    (failed,) = job.events("failed")
    assert (failed["reason"], failed["exit_code"]) == ("exception", 1)
    assert "torn installation" in failed["traceback"]
    assert job.events("resumed")[-1]["previous"] == "failed (exception)"

    with journey.stage("a stop before the next submit"):
        cluster.ask("scancel", journey.job_id)
        journey.go_on(until_signalled=True)
        cluster.wait_for_state(journey.job_id, "CANCELLED")

    with journey.stage("two signals during a save, and no scontrol, as in a container: the run waits for a submit"):
        commands = tmp_path / "bin"
        commands.mkdir()
        for name in ("srun", "env", "rm", "cp"):
            (commands / name).symlink_to(shutil.which(name) or "")
        told = tmp_path / "told"
        journey.submit(
            slurm_setup=[f"export PATH={commands}"],
            on_end=f'echo "$AAE_STATE, $AAE_VERDICT" >> {told}',
            checkpoint_every_steps=4,  # so that most of the time one is being written
        )
        journey.rest()
        process = job.process()
        os.kill(process, signal.SIGUSR2)
        os.kill(process, signal.SIGTERM)
        journey.go_on()
        assert cluster.wait_for_state(journey.job_id, "FAILED", "COMPLETED") == "FAILED"
        assert job.reasons()[-1] == "time_limit"
        shown = job.shown()
        assert (shown["state"], shown["needs_person"]) == ("waiting", True)
        assert "scontrol cannot be run here" in job.status()["verdict"]
        assert told.read_text() == f"waiting, {job.status()['verdict']}\n"

    with journey.stage("a step that never ends"):
        journey.at_next_start(f"export PYTHONPATH={_hanging(tmp_path)}:$PYTHONPATH")
        journey.finish(300, step_limit_s=3)
        job.wait_until_finished(journey.job_id)
        assert [record["reason"] for record in job.events("failed")[1:]] == ["hung"], job.job_log()
        assert job.events("resumed")[-1]["previous"] == "failed (hung)"
        assert job.lost()[-2] == 0
    journey.compare()
    cluster.wait_until_idle()  # for whoever comes next


def _hanging(folder: Path) -> Path:
    """A folder for PYTHONPATH with which a task hangs in its 130th step."""
    site = folder / "hanging"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        f"{HANGING}\n"
        "def when_loaded():\n"
        "    while not hasattr(sys.modules.get('torch'), 'addcmul'):\n"
        "        time.sleep(0.01)\n"
        "    hang(130)\n\n"
        "if 'submitit.core._submit' in ' '.join(sys.orig_argv):\n"
        "    threading.Thread(target=when_loaded, daemon=True).start()\n"
    )
    return site


@pytest.mark.waits(170)
def test_limits_that_move_and_clocks_that_stand(job: SlurmJob, tmp_path: Path) -> None:
    """A limit changed under the running job, a suspension, a step that hangs when the allocation ends."""
    journey, cluster = Journey(job, tmp_path), job.cluster
    journey.submit(slurm_time="00:01:00", slurm_signal_delay_s=15, slurm_max_stalls=99)
    limit = ("scontrol", "update", f"JobId={journey.job_id}")

    with journey.stage("a longer limit is used: it is still in its first segment when the old one is over"):
        cluster.wait_for_state(journey.job_id, "RUNNING")
        began = time.monotonic()
        cluster.ask(*limit, "TimeLimit=20")
        journey.rest()
        time.sleep(max(0.0, began + 62 - time.monotonic()))
        journey.train_on()
        assert (job.reasons(), job.status()["segment"]) == ([], 1)

    with journey.stage("a suspended job is shown so, and counts no time"):
        before = job.events("step")[-1]["elapsed_s"]
        told = [record["reason"] for record in job.events("warning")].count("suspended")
        journey.go_on()
        cluster.ask("scontrol", "suspend", journey.job_id)
        time.sleep(14)
        job.slurm("status", "small")
        assert "suspended" in job.output
        assert cluster.state(journey.job_id) == "SUSPENDED"
        cluster.ask("scontrol", "resume", journey.job_id)
        journey.train_on()
        deadline = time.monotonic() + 30
        while job.events("step")[-1]["elapsed_s"] - before > 12:  # of a record before the watchdog has looked
            assert time.monotonic() < deadline
            journey.train_on()
        assert [record["reason"] for record in job.events("warning")].count("suspended") > told
        assert job.reasons() == []

    with journey.meets(
        "a limit that is shortened, with a clock that does not know yet", "time_limit", until_signalled=True
    ):
        journey.at_next_start(f"export PYTHONPATH={_hanging(tmp_path)}:$PYTHONPATH")
        cluster.ask(*limit, "TimeLimit=1")
    with journey.meets("a step that hangs as the allocation ends: no TIMEOUT without a word", None, most_lost=INTERVAL):
        pass
    cluster.ask(*limit, "TimeLimit=20")
    assert [record["reason"] for record in job.events("failed")] == ["hung"], job.job_log()
    assert job.events("resumed")[-1]["previous"] == "failed (hung)"

    with journey.stage("cancel of a suspended job, which may be ended without being let go on, says what is lost"):
        journey.train_on(INTERVAL)
        journey.go_on()
        cluster.ask("scontrol", "suspend", journey.job_id)
        assert job.slurm("cancel", "small") == 0, job.output
        status = job.status()
        assert status["state"] == "cancelled"
        assert (status["step"] > status["checkpoint_step"]) == ("not saved" in job.output)

    with journey.stage("a job without the shell's environment, by the user here, by the site elsewhere"):
        journey.finish(slurm_extra='{"export": "NONE"}', slurm_time="01:00:00")
    journey.compare()


@pytest.mark.waits(180)
def test_time_limits_without_a_signal_before_them(job: SlurmJob, tmp_path: Path) -> None:
    """By the job's own clock, and by Slurm's SIGTERM at last; between them, signals that a person sends to stop it."""
    journey, cluster = Journey(job, tmp_path), job.cluster
    sbatch = tmp_path / "bin" / "sbatch"  # a site's own, which takes the signal away
    sbatch.parent.mkdir()
    sbatch.write_text(
        f'#!/bin/sh\nsed -i "s/^#SBATCH --signal=.*/#SBATCH --signal=URG@1/" "$1"\n{shutil.which("sbatch")} "$1"\n'
    )
    scontrol = tmp_path / "misled" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\n{shutil.which("scontrol")} "$@" | sed "s/EndTime=[0-9]*/EndTime=99999999999/"\n')
    for command in (sbatch, scontrol):
        command.chmod(0o755)
    job.environment["PATH"] = f"{sbatch.parent}:{job.environment['PATH']}"
    limited = {"slurm_time": "00:01:00", "slurm_signal_delay_s": 30, "slurm_max_stalls": 99}

    journey.submit(**limited)
    assert "plan  time unknown" in job.output
    journey.rest()
    with journey.meets("the job's own clock is first", "time_limit"):
        while cluster.ask("squeue", "-h", "-j", journey.job_id, "-o", "%L") > "0:12":
            time.sleep(0.5)
    assert job.events("signal") == []
    _stopped_by(journey, job, "HUP", 75)

    journey.submit(**limited, slurm_setup=[f"export PATH={scontrol.parent}:$PATH"])
    journey.rest()
    num_signals = len(job.events("signal"))
    with journey.meets("Slurm's SIGTERM at the limit still leaves time to save", "time_limit", until_signalled=True):
        pass
    # On a busy machine the first may be served before Slurm says that the job is ending; it sends another.
    assert {record["signal"] for record in job.events("signal")[num_signals:]} == {"SIGTERM"}
    _stopped_by(journey, job, "USR1", 75)
    journey.finish(slurm_time="01:00:00")
    journey.compare()
    assert set(job.lost()) == {0}


@pytest.mark.waits(110)
def test_a_time_limit_with_a_signal_before_it(job: SlurmJob, tmp_path: Path) -> None:
    """By Slurm's own clock; what a person stops by Ctrl-C then goes on where srun would start a task for each half of a node."""
    journey, cluster = Journey(job, tmp_path), job.cluster
    # Slurm looks every 30 s and signals before it would be too late: 75 to 105 s after the start, when the run trains.
    journey.submit(slurm_time="00:02:00", slurm_signal_delay_s=15, slurm_max_stalls=99)
    journey.rest()
    with journey.meets("a time limit with a signal before it", "time_limit", until_signalled=True):
        pass
    kept = job.status()  # for forecasts: the limit of this allocation, and the one wait so far
    assert kept["started_at"] < kept["limit_at"] < iso(time.time() + 121)
    assert [5 < wait_s < 100 for wait_s in kept["waits_s"]] == [True]
    _stopped_by(journey, job, "INT", 130)

    with journey.stage("a whole node"):
        probe = (
            "sbatch",
            "--wait",
            "-N1",
            "-c32",
            "--exclusive",
            "-o",
            f"{tmp_path}/probe",
            "-e",
            "/dev/null",
            "--wrap",
        )
        cluster.ask(*probe, "srun -c32 true; srun -c32 hostname")
        assert len((tmp_path / "probe").read_text().split()) == 2
        journey.finish(slurm_cpus_per_task=32, slurm_extra='{"exclusive": true}')
    journey.compare()
    assert len(list(job.run_dir.slurm.glob(f"{journey.job_id}_*.out"))) == 1
    assert set(job.lost()) == {0}


def _stopped_by(journey: Journey, job: SlurmJob, name: str, exit_code: int) -> None:
    """Whoever sends such a signal by hand wants the run to stop: saved, waiting, not started again, and status says so."""
    with journey.stage(f"SIG{name}"):
        job.cluster.ask("scancel", f"--signal={name}", journey.job_id)
        journey.go_on()
        assert job.cluster.wait_for_state(journey.job_id, "FAILED", "COMPLETED") == "FAILED"
        status = job.status()
        assert (status["state"], status["exit_code"]) == ("waiting", exit_code)
        assert job.events("checkpoint")[-1]["step"] == status["step"]
        shown = job.shown()
        assert (shown["state"], shown["needs_person"]) == ("waiting", True)


def _readme_script(form: str) -> str:
    """One of the guide's two scripts, with this environment's command and this run's settings instead of the example's."""
    readme = (Path(__file__).parent.parent / "slurm" / "README.md").read_text()
    scripts = re.findall(r"```bash\n(#!/bin/bash\n.*?)```", readme, re.DOTALL)
    (text,) = [text for text in scripts if re.search(rf"^{form} ", text, re.MULTILINE)]
    assert len(text.splitlines()) < 10
    text = text.replace(".venv/bin/aae-slurm", f"{shlex.quote(sys.executable)} -P -m slurm")
    return re.sub(r"^export .*\n", "", text, flags=re.MULTILINE)


@pytest.mark.waits(30)
def test_plain_batch_scripts_do_the_same(job: SlurmJob, tmp_path: Path) -> None:
    """Both scripts of the guide, with `aae-slurm run` in them, survive a USR2; of a step of two tasks one trains."""
    journey, cluster = Journey(job, tmp_path), job.cluster

    def send(script: str, *options: str, steps: int = ENDLESS) -> str:
        (tmp_path / "script.sh").write_text(script)
        sent = subprocess.run(
            ["sbatch", "--parsable", *options, str(tmp_path / "script.sh")],
            env=job.environment | {"AAE_MAX_STEPS": str(steps)},
            capture_output=True,
            text=True,
            check=True,
        )
        return sent.stdout.strip()

    for form in ("srun", "exec"):
        journey.job_id = send(_readme_script(form), f"--output={tmp_path}/{form}.out")
        journey.rest()
        with journey.meets(f"the script with {form}", "time_limit"):
            cluster.ask("scancel", *(["--batch"] if form == "exec" else []), "--signal=USR2", journey.job_id)
        assert "asks for no signal" not in (tmp_path / f"{form}.out").read_text()
        with journey.stage("a stop before the next script"):
            cluster.ask("scancel", journey.job_id)
            journey.go_on(until_signalled=True)
            cluster.wait_for_state(journey.job_id, "CANCELLED")
    command = f"#!/bin/bash\nsrun --ntasks=2 {shlex.quote(sys.executable)} -P -m slurm run\n"
    journey.total = job.status()["step"] + 100
    journey.job_id = send(command, "-n2", f"--output={tmp_path}/two.out", steps=journey.total)
    journey.compare()
    assert "this is task 1: nothing to do" in (tmp_path / "two.out").read_text()
    assert set(job.lost()) == {0}
