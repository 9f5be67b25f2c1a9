#!/usr/bin/env bash
# Scores a payment twice through the API at API_URL with the key in API_KEY, and sees that it is decided once.
set -euo pipefail
: "${API_URL:?https://api.example.com}" "${API_KEY:?a key of the scope score}"

now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
payment='{"transaction_id": "smoke-'$RANDOM-$now'", "timestamp": "'$now'", "amount": "1.00", "card": "smoke-test",
    "merchant": "smoke test", "category": "misc_net"}'

score() { # the key is given by a file descriptor, for the arguments of a process can be seen by others
    curl --silent --show-error --fail --max-time 10 --retry 12 --retry-delay 5 --retry-all-errors \
        --config <(printf 'header = "Authorization: Bearer %s"\n' "$API_KEY") \
        --header 'Content-Type: application/json' --data "$payment" "$API_URL/v1/score"
}

first=$(score)
again=$(score)
printf '%s\n' "$first"
grep --quiet --extended-regexp '"decision": ?"(approve|review|decline)"' <<<"$first"
[[ "$first" == "$again" ]] || { echo "The same payment got another answer: $again"; exit 1; }
