"""Drivers: pump bytes between a transport, a session and storage.

::

    sender, receiver     one transfer, from OPEN to COMMITTED, each side
      reading, writing   the data path: plan -> frames, frames -> staging
      comparing          digests of a snapshot, and where two ends differ
      plan               a delta, spooled; its totals and digest
    channel              a session over a transport: reader, heartbeats, backpressure
    blocking             where blocking storage calls run
    events               what progress displays and logs are told
"""
