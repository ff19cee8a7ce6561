"""Events are plain values: whoever shows them needs nothing else."""

from __future__ import annotations

import dataclasses
import json

from blockrep.replication import events


def test_every_event_is_frozen_and_fits_json() -> None:
    samples = {
        "str": "x",
        "int": 1,
        "float": 0.5,
        "tuple[tuple[int, int], ...]": ((1, 2),),
        "tuple[tuple[str, float], ...]": (("x", 0.5),),
        "tuple[tuple[str, int, float], ...]": (("x", 1, 0.5),),
    }
    for cls in events.Event.__subclasses__():
        event = cls(**{field.name: samples[str(field.type)] for field in dataclasses.fields(cls)})
        assert json.loads(json.dumps(dataclasses.asdict(event)))
        assert dataclasses.fields(cls)
        assert cls.__name__ in events.__all__
