"""The replica as it travels in VOLUME, both ways."""

from __future__ import annotations

from blockrep.model.snapshots import Replica, Space, VolumeInfo
from blockrep.protocol.messages import Volume

__all__ = ["replica_from", "volume_from"]


def volume_from(replica: Replica) -> Volume:
    """Return the message that describes a replica."""
    info = replica.info or VolumeInfo("", "", 0, replica.space.chunk_bytes)
    return Volume(
        exists=replica.exists,
        owned=replica.owned,
        drifted=replica.drifted,
        kind=info.kind,
        identity=info.identity,
        size_bytes=info.size_bytes,
        block_bytes=info.block_bytes,
        align_bytes=replica.align_bytes,
        lineage=replica.lineage,
        chunk_bytes=replica.space.chunk_bytes,
        free_bytes=max(replica.space.free_bytes, 0),
        metadata_free_chunks=max(replica.space.metadata_free_chunks, 0),
        staging=replica.staging,
        snapshots=replica.snapshots,
    )


def replica_from(volume: Volume) -> Replica:
    """Return the replica that a message describes."""
    info = None
    if volume.exists:
        info = VolumeInfo(volume.kind, volume.identity, volume.size_bytes, volume.block_bytes)
    return Replica(
        exists=volume.exists,
        owned=volume.owned,
        info=info,
        lineage=volume.lineage,
        space=Space(volume.chunk_bytes, volume.free_bytes, volume.metadata_free_chunks),
        snapshots=volume.snapshots,
        staging=volume.staging,
        align_bytes=volume.align_bytes,
        drifted=volume.drifted,
    )
