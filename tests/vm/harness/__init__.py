"""Virtual machines with real LVM for tests: no special kernel, no rights to run them.

    errors    what all of it raises
    image     kernel, RAM disk and root, built once and cached
    cpio      the archive that brings files into a guest
    machine   one machine: boot, commands, files, kill
    channel   the line to the agent in the guest, and the commands on it
    link      the network cable between two machines, and its faults
    volumes   volume groups, thin pools and thin volumes in a guest
    pair      two machines and their link
    groups    the volume groups that most tests start from
    guest/    what runs inside: init scripts and the agent

The fixtures are in tests/vm/conftest.py.
"""
