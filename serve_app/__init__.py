"""Where the model runs online: an HTTP service on Ray Serve.

`listing`, `predictor`, `columns` and `tensors` know nothing of HTTP; `api` puts them on the wire, `app` on Ray.
"""
