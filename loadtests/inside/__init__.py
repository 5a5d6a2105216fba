"""Benchmarks and checks of this service's own parts: they start its processes, kill them, or read
their CPU and memory, which no load test over HTTP can. Not a part of the distribution `loadtest`,
whose client sends what is sent here, too."""
