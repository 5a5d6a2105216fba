"""From a scenario to its requests: arrivals, lengths, prompts, models, sessions, traces."""
