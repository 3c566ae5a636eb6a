"""Prints attributes.txt: which attributes operators have, as the packages onnx and onnxruntime know them.

    pip install onnx==1.23.2 onnxruntime==1.32.0
    python attributes.py > attributes.txt
"""

from collections import defaultdict

import onnx
import onnxruntime
import onnxruntime.capi.onnxruntime_pybind11_state as ort

table = defaultdict(lambda: defaultdict(dict))
for s in onnx.defs.get_all_schemas_with_history():
    table[s.domain or "ai.onnx"][s.name][s.since_version] = sorted(s.attributes)
for s in ort.get_all_operator_schema():
    if s.domain == "com.microsoft":
        table[s.domain][s.name][s.since_version] = sorted(s.attributes)
    elif (s.domain, s.name) == ("", "SimplifiedLayerNormalization"):
        # It is in ONNX's own domain there; some exporters write it into ONNX Runtime's.
        for domain in ("ai.onnx", "com.microsoft"):
            table[domain][s.name][s.since_version] = sorted(s.attributes)

print("# What operators have as attributes, from an operator set on. A domain comes with its newest operator set.")
print(f"# Made by attributes.py of onnx {onnx.__version__} and onnxruntime {onnxruntime.__version__}.")
for domain, operators in sorted(table.items()):
    print(f"\ndomain {domain} {max(v for versions in operators.values() for v in versions)}")
    for operator, versions in sorted(operators.items()):
        before = None
        for version, attributes in sorted(versions.items()):
            if attributes != before:
                print(" ".join([operator, str(version), *attributes]))
            before = attributes
