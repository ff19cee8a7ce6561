"""Every scenario, by its name on the command line."""

from __future__ import annotations

import functools

import changed_scenarios as changed
import full_scenarios as full
import link_scenarios as link
from data import KIB, MIB
from resume_scenario import resume
from scenario import Entry, Place

#: What a slow link carries in a bearable time: a sixteenth of the size.
_SLOW_SHARE = 1 / 16

CATALOGUE = (
    Entry("full", "full copy, encrypted", full.full),
    Entry("full-bbr", "full copy, encrypted, TCP bbr", full.full, congestion="bbr"),
    Entry("full-plain", "full copy, not encrypted", full.full_plain),
    Entry("full-ssh", "full copy over SSH", full.over_ssh),
    Entry("full-disk", "full copy to a disk, fsync counted", full.full, Place.DISK, fresh=True),
    Entry("sparse", "full copy, 90 % not allocated", full.sparse, fresh=True),
    Entry("tiny-extents", "full copy of 100,000 lone 4 KiB", full.tiny_extents, fresh=True),
    Entry("scan-scattered", "1 % changed, scattered; plain files", changed.scan_scattered),
    Entry(
        "scan-contiguous",
        "1 % changed, in one run; plain files",
        changed.scan_contiguous,
        like="scan-scattered",
    ),
    Entry("scan-unchanged", "nothing changed; plain files", changed.scan_unchanged),
    Entry(
        "known-scattered",
        "1 % changed, scattered; delta known (XFS)",
        changed.known_scattered,
        Place.XFS,
    ),
    Entry(
        "known-contiguous",
        "1 % changed, in one run; delta known (XFS)",
        changed.known_contiguous,
        Place.XFS,
        like="known-scattered",
    ),
    Entry(
        "known-tiny",
        "100,000 lone 4 KiB changed; delta known (XFS)",
        changed.known_tiny,
        Place.XFS,
    ),
    Entry(
        "known-unchanged",
        "nothing changed; known (XFS)",
        changed.known_unchanged,
        Place.XFS,
        like="known-scattered",
    ),
    *(
        Entry(
            f"pages-{size}",
            f"a database's pages, known by {title}, 1 Gbit/s",
            functools.partial(changed.pages, chunk_bytes),
            Place.XFS,
            like="" if size == "512k" else "pages-512k",
        )
        for size, title, chunk_bytes in (
            ("64k", "chunks of 64 KiB", 64 * KIB),
            ("512k", "chunks of 512 KiB", 512 * KIB),
            ("1m", "chunks of 1 MiB", MIB),
        )
    ),
    Entry("slow-link", "compressible, 100 Mbit/s", link.slow_link, share=_SLOW_SHARE),
    Entry("far-link", "compressible, 20 ms each way", link.far_link, share=1 / 4),
    Entry("eight-volumes", "eight volumes at once", full.eight_volumes),
    Entry("verify", "both ends compared", changed.verify),
    Entry(
        "resume", "killed half way and resumed; then looks for later changes", resume, fresh=True
    ),
)
