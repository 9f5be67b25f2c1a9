#!/usr/bin/env bash
# Fails if an image holds a secret, or a severe weakness for which there is a repair.
#   docker/scan.sh IMAGE...
set -euo pipefail
for image in "$@"; do
    docker run --rm --volume /var/run/docker.sock:/var/run/docker.sock --volume trivy:/root/.cache \
        aquasec/trivy:0.73.0@sha256:7cced7cae583819fc7806d4cbc0dbbc7cad18b99f7d3e235192e6da8c091045c \
        image --quiet --scanners vuln,secret --severity HIGH,CRITICAL --ignore-unfixed --exit-code 1 "$image"
done
