"""`aae-job events-schema`: prints the JSON Schema of the event log."""

import json

from job.commandline import Parser
from job.errors import EXIT_FINISHED


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    Parser(
        "aae-job events-schema",
        "Prints the JSON Schema (2020-12) that every line of a run's events.jsonl satisfies.",
        "aae-job events-schema > events.schema.json",
    ).parse_args(arguments)

    from job.log.events import events_schema as schema

    print(json.dumps(schema(), indent=1))
    return EXIT_FINISHED
