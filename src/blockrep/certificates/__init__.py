"""A private certificate authority and the certificates of hosts."""
