"""What a run sends: scenarios as YAML, checked with file, line and fix."""
