#!/bin/sh
# The whole way of the second problem, through the ordinary commands: `make demo-flights`, or examples/flights/demo.sh.
set -eu
cd "$(dirname "$0")/../.."
PATH="$PWD/.venv/bin:$PATH"
OUT=${OUT:-flights-demo} ROWS=${ROWS:-40000} PORT=${PORT:-8013}
export NIGHTPRICE_CONTRACT=examples.flights:CONTRACT NIGHTPRICE_REGISTRY="$OUT/registry"
# Trees down to single rows would fill gigabytes here: late flights are mostly a matter of chance.
export NIGHTPRICE_RANDOM_FOREST__MIN_SAMPLES_LEAF=20
at=http://127.0.0.1:$PORT

step() { printf '\n== %s\n' "$*" >&2; "$@"; }
nightprice() { python -m pipeline "$@"; }
ask() { curl --silent --show-error --fail --header 'Content-Type: application/json' --data "$1" "$at$2"; echo; }

step python -m examples.flights.prepare --out "$OUT/raw" --shards 4 --rows "$ROWS"
step nightprice process --source "$OUT/raw" --sink "$OUT/dataset"
step nightprice train --data "$OUT/dataset" --estimator random_forest
step nightprice promote flight-delay@latest --reason "the baseline"
step nightprice train --data "$OUT/dataset" --workers 1 --compare flight-delay@champion
step nightprice train --data "$OUT/dataset" --workers 2 --compare flight-delay@champion
step nightprice evaluate --model flight-delay@latest --data "$OUT/dataset" --holdout
step nightprice promote flight-delay@latest --if-better
step nightprice predict --model flight-delay@champion --source "$OUT/raw/flights-003.parquet" --sink "$OUT/scored"

python -m pipeline serve --model flight-delay@champion --port "$PORT" &
service=$!
trap 'kill $service; wait $service || true' EXIT
until curl --silent --fail --output /dev/null "$at/readyz"; do
    kill -0 $service
    sleep 0.5
done
flight='{"month": 12, "weekday": 5, "departure": 1145, "arrival": 1360, "carrier": "EV", "origin": "EWR", "destination": "ORD", "distance": 719}'
step ask "$flight" /v1/predict
step ask "$flight" /v1/explain
step curl --silent --fail --output /dev/null --write-out 'The page: HTTP %{http_code}\n' "$at/"
