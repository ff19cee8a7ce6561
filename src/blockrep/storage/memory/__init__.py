"""Volumes in memory, on a simulated disk with a volatile cache: for simulation and tests."""

from blockrep.storage.memory.host import MemoryHost
from blockrep.storage.memory.source import MemorySource
from blockrep.storage.memory.target import MemoryTarget

__all__ = ["MemoryHost", "MemorySource", "MemoryTarget"]
