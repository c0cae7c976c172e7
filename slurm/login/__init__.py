"""On the login node, where nothing loads torch: the commands of `aae-slurm`, a file each, and what they share."""

from job.commandline import Command

HELP = "slurm.login.help"  # what `aae-slurm` does without the name of a command

COMMANDS = {
    "submit": Command(
        "slurm.login.submit", "checks, writes the run directory, submits; prints run, job id and what to type next"
    ),
    "run": Command(
        "slurm.node.run",
        "for plain sbatch scripts: trains inside the present allocation, with the same stop, save and requeue",
    ),
    "check": Command(
        "slurm.login.check.command", "finds what would make a submit go wrong later, and reckons how long the run takes"
    ),
    "status": Command(
        "slurm.login.status",
        "one line a run: state, steps, time left; works without accounting and without the scheduler",
        looks=True,
    ),
    "watch": Command(
        "slurm.login.watch.command",
        "a live view of a run, or of a sweep, until it ends; plain lines where the output is no terminal",
        looks=True,
    ),
    "log": Command("slurm.login.log", "the event log as one clean stream, superseded records left out", looks=True),
    "compare": Command(
        "slurm.login.compare",
        "one table over runs: settings that differ, seeds together, verdicts, figures",
        looks=True,
    ),
    "cancel": Command(
        "slurm.login.cancel", "stops a run for good, until it is submitted or started again; it stays resumable"
    ),
    "collect": Command(
        "slurm.login.collect", "keeps what one wants of runs: weights, lattices, tables, a page to look at, checksums"
    ),
    "export": Command("slurm.login.export", "a run's curves and lattices for TensorBoard"),
}
