# An image with a model in it; the build context is the folder of a version:
# docker build --file deploy/image/model.Dockerfile --tag nightprice:VERSION REGISTRY/listing-price/versions/VERSION
ARG SERVING=nightprice:serving
FROM ${SERVING}
COPY . /model
ENV NIGHTPRICE_SERVE_MODEL=/model
