"""The configuration: one TOML file, read into frozen dataclasses, and who may do what by it.

``load`` finds and reads the file, ``settings`` says what it holds, ``reader`` checks keys and
values, ``values`` parses sizes, durations and addresses, ``access`` decides about clients and
volumes, ``identity`` finds this host's certificate.
"""
