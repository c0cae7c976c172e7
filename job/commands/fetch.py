"""`aae-job fetch`: downloads a data set, on a machine with internet."""

from job.commandline import Parser
from job.config.flags import add_settings, read_configuration_from
from job.data.datasets import fetch
from job.errors import EXIT_FINISHED


def run(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(
        "aae-job fetch",
        "Downloads a data set through torchvision, for a machine with internet; nothing is downloaded while training.",
        "aae-job fetch --dataset mnist --data-dir data",
    )
    add_settings(parser, ("dataset", "data_dir"))
    settings = read_configuration_from(parser, arguments)[1].settings
    if settings.dataset == "digits":
        print("digits is part of this package: nothing to fetch (mnist, fashion-mnist and kmnist are downloaded)")
        return EXIT_FINISHED

    folder = fetch(settings.dataset, settings.data_dir)
    print(f"{settings.dataset} is in {folder}")
    return EXIT_FINISHED
