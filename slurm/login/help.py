"""`aae-slurm` without the name of a command: its help, or what was wrong with the name."""

from job.commandline import Parser
from job.errors import UsageError
from slurm.login import COMMANDS


def run(arguments: list[str]) -> int:
    """Print the help, or raise UsageError; returns the exit code."""
    parser = Parser(
        "aae-slurm",
        "Sends training runs to Slurm and looks after them; nothing here loads torch but `run`.\n\n"
        "commands, each with --help:\n"
        + "\n".join(f"  aae-slurm {name:<9} {command.does}" for name, command in COMMANDS.items()),
        "AAE_DATASET=digits AAE_SLURM_TIME=04:00:00 aae-slurm submit --dry-run",
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.parse_args(arguments)
    return UsageError.exit_code
