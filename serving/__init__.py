"""One HTTP API in front of every model: the routing, engines and wire formats."""
