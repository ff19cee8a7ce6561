"""The command line: parses, builds the object graph, shows progress.

Turns errors into exit codes.
"""
