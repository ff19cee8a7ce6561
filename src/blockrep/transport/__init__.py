"""Byte streams between two hosts: TLS over TCP, and an in-memory pair for tests and simulation."""
