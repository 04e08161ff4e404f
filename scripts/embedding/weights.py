"""Reads the tensors of a safetensors file: eight bytes of length, a JSON directory, the data."""
import json

import numpy


def read(path):
    data = open(path, "rb").read()
    n = int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + n]).items():
        if name != "__metadata__":
            begin, end = (8 + n + at for at in entry["data_offsets"])
            kind = {"F32": numpy.float32, "F16": numpy.float16, "I64": numpy.int64}[entry["dtype"]]
            tensors[name] = numpy.frombuffer(data[begin:end], kind).reshape(entry["shape"])
    return tensors
