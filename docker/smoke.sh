#!/usr/bin/env bash
# Through the API at API_URL with the key in API_KEY: scores a payment twice, sees that it is decided once, and labels it.
# The label is `unsure`, which counts in no training and no fraud rate.
set -euo pipefail
: "${API_URL:?https://api.example.com}" "${API_KEY:?a key of the scopes score and label}"

now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
id="smoke-$RANDOM-$now"
payment='{"transaction_id": "'$id'", "timestamp": "'$now'", "amount": "1.00", "card": "smoke-test",
    "merchant": "smoke test", "category": "misc_net"}'
label='{"transaction_id": "'$id'", "outcome": "unsure", "source": "analyst", "note": "a smoke test"}'

send() { # the key is given by a file descriptor, for the arguments of a process can be seen by others
    curl --silent --show-error --fail --max-time 10 --retry 12 --retry-delay 5 --retry-all-errors \
        --config <(printf 'header = "Authorization: Bearer %s"\n' "$API_KEY") \
        --header 'Content-Type: application/json' --data "$2" "$API_URL$1"
}

first=$(send /v1/score "$payment")
again=$(send /v1/score "$payment")
printf '%s\n' "$first"
grep --quiet --extended-regexp '"decision": ?"(approve|review|decline)"' <<<"$first"
[[ "$first" == "$again" ]] || { echo "The same payment got another answer: $again"; exit 1; }
kept=$(send /v1/labels "$label")
printf '%s\n' "$kept"
grep --quiet --fixed-strings "$id" <<<"$kept"
