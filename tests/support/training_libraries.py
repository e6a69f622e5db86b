"""The modules that only training may import."""

TRAINING = {"sklearn", "xgboost", "onnx", "onnxmltools", "skl2onnx", "pandas"}
