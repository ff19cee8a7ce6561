"""The volume groups that most tests start from."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from .pair import Pair
from .volumes import MIB, ThinPool, ThinVolume, create_pool


@dataclass(frozen=True)
class Groups:
    """The volume groups of a test; ``replica_volume`` is not there until something makes it."""

    source_pool: ThinPool
    target_pool: ThinPool
    thin_volume: ThinVolume
    replica_volume: ThinVolume


@dataclass(frozen=True)
class MakeGroups:
    """Makes the volume groups of a test, with the sizes that it wants."""

    pair: Pair

    def __call__(
        self,
        *,
        volume_bytes: int = 64 * MIB,
        source_pool_bytes: int = 256 * MIB,
        source_chunk_bytes: int = 64 * 1024,
        target_pool_bytes: int = 256 * MIB,
        target_chunk_bytes: int = 64 * 1024,
        target_zero: bool = True,
        target_error_when_full: bool = False,
        target_discards: str = "passdown",
    ) -> Groups:
        """Make ``volg/thin_volume`` on the origin and an empty pool in ``vgreplica``.

        The replica would be ``vgreplica/thinv_replica``. ``target_discards`` is in LVM's words.
        """

        def make_source() -> ThinVolume:
            pool = create_pool(
                self.pair.origin,
                "volg",
                self.pair.origin.disks[0],
                size_bytes=source_pool_bytes,
                chunk_bytes=source_chunk_bytes,
            )
            return pool.create_volume("thin_volume", volume_bytes)

        with ThreadPoolExecutor() as threads:
            source = threads.submit(make_source)
            target_pool = create_pool(
                self.pair.replica,
                "vgreplica",
                self.pair.replica.disks[0],
                size_bytes=target_pool_bytes,
                chunk_bytes=target_chunk_bytes,
                zero=target_zero,
                error_when_full=target_error_when_full,
                discards=target_discards,
            )
            volume = source.result()
        return Groups(volume.pool, target_pool, volume, target_pool.volume("thinv_replica"))
