"""Storage kinds behind one interface: LVM thin volumes, image files, memory (for simulation)."""
