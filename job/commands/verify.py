"""`aae-job verify`: reads and checks every checkpoint, the event log and `final/` of a run."""

import json
from dataclasses import asdict

from job.commandline import Parser, add_run
from job.loading import loading
from job.rundir.directory import RunDir


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(
        "aae-job verify",
        "Checks every byte of every checkpoint, every record of the event log, and final/; changes nothing.\n"
        "Exit code 0: all good; 1: damage found; 2: no such run.",
        "aae-job verify digits-2d-seed0-44136fa3",
    )
    add_run(parser)
    parser.add_argument("--json", action="store_true", help="print the findings as a JSON array")
    options = parser.parse_args(arguments)
    run_dir: RunDir = options.run

    with loading():
        from job.proofs.verify import verify_run

    findings = verify_run(run_dir)
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            print(f"{'ok    ' if finding.good else 'DAMAGE'}  {finding.what}: {finding.seen}")
    return 0 if all(finding.good for finding in findings) else 1
