"""Pure nouns of replication: extents, names, snapshots, lineages, plans. No I/O, no clock."""
