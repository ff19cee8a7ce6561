"""Sessions through SSH: a program on the other host, or a server there behind a forwarded socket.

Two carriers: asyncssh in this process (:mod:`.library`), and the system's OpenSSH client
(:mod:`.openssh`), for its ciphers, its speed and whatever set-up it already works with.
"""
