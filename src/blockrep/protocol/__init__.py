"""The blockrep protocol without I/O; ``proto/PROTOCOL.md`` is the norm.

::

    session      one connection's state: frames in, frames out, timers, one ABORT at most
      transitions  who may send what when, as data
      messages     typed frames  <-- fields (types and bounds of header keys)
      frames       bytes <-> (type, header, payload); nothing is buffered before it was checked
    chain        the running digest of a transfer
    limits       the numbers
"""
