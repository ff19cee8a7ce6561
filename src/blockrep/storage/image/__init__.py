"""Volumes that are plain files.

Reflink clones where the file system has them, digest tables and redo files elsewhere. Everything of
ours lives beside the file, in ``.blockrep/<file name>/`` (:mod:`blockrep.storage.image.sidecar`).
"""
