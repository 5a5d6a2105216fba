"""The subcommands of `loadtest`, one in each module."""
