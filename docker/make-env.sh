#!/usr/bin/env bash
# Prints .env.example, or the file that is named, with a secret of 32 random bytes after each name that has no value.
set -euo pipefail
while IFS= read -r line; do
    case "$line" in
        [A-Z]*=) printf '%s%s\n' "$line" "$(openssl rand -hex 32)" ;;
        *) printf '%s\n' "$line" ;;
    esac
done <"${1:-$(dirname "${BASH_SOURCE[0]}")/.env.example}"
