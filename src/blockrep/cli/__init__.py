"""The command line: parses, builds the object graph, shows progress, turns errors into exit codes."""
