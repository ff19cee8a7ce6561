"""LVM thin volumes as source and target.

::

    runner      starts programs, the only module that does
    commands    argument lists                                        pure
    reports     what lvs and dmsetup say                              pure
    thin_xml    what thin_delta and thin_dump say                     pure
    tags        snapshots as LVM tags and back                        pure
    writable    snapshots of ours that somebody made his own
    planning    room in a pool, deltas as extents                     pure
    recovery    staging volume -> replica, from wherever a crash left it   pure
    versions    refuses thin_delta versions that miss changes
    metadata    the pool's metadata snapshot: reserve, read, release
    group       one volume group: state, and changes to it
    device      block devices: open, verify, read, write, discard
    reading     activates a snapshot for as long as it is read
    cursors     how far a staging volume is durable
    source      LvmSource
    staging     LvmStaging
    replica     what a replica must be before its content is exchanged
    target      LvmTarget

What exists is decided from tags and uuids alone, never from names: names and thin ids are reused.
"""
