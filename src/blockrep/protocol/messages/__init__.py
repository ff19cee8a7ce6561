"""Typed frames: one class for each type of PROTOCOL.md, with the bounds of its keys beside it.

::

    control     HELLO, WELCOME, PULL, PING, ABORT, BYE: the connection
    volume      OPEN, VOLUME, PRUNE, PRUNED, RELEASE: what is worked on
    comparison  COMPARE, DIGESTS, COMPARED: where two ends differ
    transfer    BEGIN, READY, DATA, ACK, COMMIT, COMMITTED: one snapshot's journey
    base        what they have in common
    codec       frame -> message, message -> buffers

``message_from(frame)`` checks a received frame; ``encode_message(message)`` returns the buffers to
send. Both check the same bounds.
"""

from blockrep.protocol.messages.base import Message
from blockrep.protocol.messages.codec import encode_message, message_from
from blockrep.protocol.messages.comparison import Compare, Compared, Digests, StageRequest
from blockrep.protocol.messages.control import Abort, Bye, Hello, Ping, Pull, Welcome
from blockrep.protocol.messages.transfer import Ack, Begin, Commit, Committed, Data, Ready
from blockrep.protocol.messages.volume import Open, Prune, Pruned, Release, Volume

__all__ = [
    "Abort",
    "Ack",
    "Begin",
    "Bye",
    "Commit",
    "Committed",
    "Compare",
    "Compared",
    "Data",
    "Digests",
    "Hello",
    "Message",
    "Open",
    "Ping",
    "Prune",
    "Pruned",
    "Pull",
    "Ready",
    "Release",
    "StageRequest",
    "Volume",
    "Welcome",
    "encode_message",
    "message_from",
]
