"""The execution paths: `paths` lists them, and a file for each library runs them, from one `request`.

`choose` is what `auto` does with what was `measured` on this machine.
"""

import os
import sys

# A prediction talks to nobody and leaves no ids on the disk: OpenVINO and NNCF report through this package, and do
# without it where it cannot be imported; ONNX Runtime reads the variable before it writes an id of the machine.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
