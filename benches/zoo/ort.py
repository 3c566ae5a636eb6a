"""ONNX Runtime beside the zoo: a line of JSON in, a line of JSON out.

{"load": MODEL, "threads": N}                    -> load_s, inputs (names and element types)
{"run": INPUTS.npz, "out": OUT.npz, "times": N}  -> ms: N latencies
"""

import json
import sys
import time

import numpy
import onnxruntime

session = None


def load(line):
    global session
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = line["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(line["load"], options, providers=["CPUExecutionProvider"])
    seconds = time.perf_counter() - start
    return {"load_s": seconds, "inputs": [[i.name, i.type] for i in session.get_inputs()]}


def run(line):
    given = numpy.load(line["run"])
    feeds = {name: given[name] for name in given.files}
    names = [o.name for o in session.get_outputs()]
    outputs = session.run(names, feeds)
    ms = []
    for _ in range(line["times"]):
        start = time.perf_counter()
        session.run(names, feeds)
        ms.append((time.perf_counter() - start) * 1e3)
    arrays = {n: o for n, o in zip(names, outputs) if isinstance(o, numpy.ndarray) and o.dtype.kind in "biuf"}
    numpy.savez(line["out"], **arrays)
    return {"ms": ms, "outputs": names}


for text in sys.stdin:
    line = json.loads(text)
    try:
        answer = load(line) if "load" in line else run(line)
        answer["ok"] = True
    except Exception as e:
        answer = {"ok": False, "error": str(e).splitlines()[0][:300]}
    print(json.dumps(answer), flush=True)
