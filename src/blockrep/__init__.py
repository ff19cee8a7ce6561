"""Block-level replication of LVM thin volumes, image files and plain block devices."""

__all__ = ["__version__"]

#: The version of this package; the only place where it is written (the build reads it here).
__version__ = "0.1.0"
