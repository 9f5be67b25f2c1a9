#!/usr/bin/env bash
# Builds every image, scans it and pushes it to ECR under the commit; prints the digests as images.env.
#   docker/publish.sh REGISTRY COMMIT
set -euo pipefail
registry=$1 commit=$2
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for name in pipeline scorer ui prometheus alertmanager grafana proxy; do
    image=$registry/fraud-$name:$commit
    docker build --pull --file "docker/$name.Dockerfile" --tag "$image" . >&2
    docker/scan.sh "$image" >&2
    docker push --quiet "$image" >&2
    # An image that was built before under the same name may have other digests; the one of this repository was just pushed.
    digest=$(docker image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$image" | grep --max-count 1 "^$registry/fraud-$name@sha256:")
    printf '%s_IMAGE=%s\n' "${name^^}" "$digest"
done
