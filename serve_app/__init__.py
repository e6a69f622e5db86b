"""Where the model runs online: an HTTP service on Ray Serve.

    model/        records in, predictions out, by the version in force; knows nothing of HTTP
    protocols/    Arrow streams and the Open Inference Protocol
    http/         the ASGI application, the page, the documents
    deployment/   how it is started; `app` is the deployment itself

Every part takes the problem as a `Contract`.
"""
