"""One module a command: `HELP`, `add_arguments(parser)`, `run(args) -> exit code`.

Nothing heavy is imported at the top of these modules: `dataflows --help` reads them all.
"""
