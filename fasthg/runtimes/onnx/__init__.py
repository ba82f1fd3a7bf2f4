"""The ONNX graph of a network, and its conversion to half precision and int8."""
