"""−ln L of an HS3 document at some points, by an interpreter that has pyhs3 (GAMMASTAR_PYHS3_PYTHON)."""

import json
import sys
from pathlib import Path

import numpy as np
import pyhs3
import pytensor
from pytensor.graph.traversal import explicit_graph_inputs

document, points = (json.loads(Path(path).read_text("utf-8")) for path in sys.argv[1:3])
model = pyhs3.Workspace(**document).model(
    document["analyses"][0]["name"], progress=False, mode="FAST_COMPILE"
)
inputs = list(explicit_graph_inputs([model.log_prob]))
log_l = pytensor.function(inputs, model.log_prob, on_unused_input="ignore", mode="FAST_COMPILE")
known = dict(model.data) | dict(model.free_params)
found = []
for point in points:
    values = [np.asarray((known | point)[one.name], dtype=one.dtype) for one in inputs]
    found.append(-float(np.ravel(log_l(*values))[0]))
sys.stdout.write(json.dumps(found))
