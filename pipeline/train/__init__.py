"""Training on Ray Train: `train` is the whole run; estimators, rows and export are modules of their own."""
