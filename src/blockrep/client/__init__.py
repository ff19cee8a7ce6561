"""The dialling side: connects to a server and runs one operation."""
