"""The commands of `aae-job`, a file each; only the one that is typed is loaded."""

from job.commandline import Command

TRAIN = "job.commands.train"  # what `aae-job` does without the name of a command

COMMANDS = {
    "fetch": Command("job.commands.fetch", "downloads AAE_DATASET into AAE_DATA_DIR; needs internet"),
    "evaluate": Command(
        "job.commands.evaluate",
        "measures a run's newest weights on held-out data; prints, and writes evaluations/step-....json",
    ),
    "sample": Command("job.commands.sample", "decodes a lattice or prior samples from a run's newest weights"),
    "encode": Command("job.commands.encode", "writes the codes of a run's data set, or of images of one's own"),
    "verify": Command("job.commands.verify", "reads and checks every checkpoint and the event log of a run"),
    "verify-resume": Command(
        "job.commands.verify_resume", "proves exact resume with the present settings on this machine"
    ),
    "bench": Command("job.commands.bench", "measures the lecture's loop, this project's and the hardware's floor"),
    "events-schema": Command("job.commands.events_schema", "prints the JSON Schema of the event log"),
}
