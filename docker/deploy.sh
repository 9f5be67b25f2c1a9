#!/usr/bin/env bash
# Runs on the EC2 machine as root. Each release lies in /opt/fraud/releases/COMMIT with its compose files and its images' digests.
#   deploy.sh start COMMIT   starts a release; it is the present one from then on, even if it does not come up
#   deploy.sh back COMMIT    leaves that release: starts the one before it again, or the present one if that is another
set -euo pipefail
export HOME=/root # Docker keeps ECR's login there; Systems Manager sets none
umask 077
root=${FRAUD_ROOT:-/opt/fraud}
cd "$root"

present=$(cat present 2>/dev/null || true)
previous=$(cat previous 2>/dev/null || true)
commit=${2:?deploy.sh start COMMIT, or deploy.sh back COMMIT}
case "$1" in
    start) wanted=$commit ;;
    back) if [[ $present == "$commit" ]]; then wanted=$previous; else wanted=$present; fi ;;
    *) echo "deploy.sh start COMMIT, or deploy.sh back COMMIT" >&2; exit 2 ;;
esac
[[ -n $wanted ]] || { echo "There is no release to go back to; see docs/deploy.md." >&2; exit 1; }
release=$root/releases/$wanted
[[ -f $release/images.env ]] || { echo "There is no release $wanted in $root/releases." >&2; exit 1; }

# The machine's role must be out of reach for whoever makes a service of ours send a plain GET request.
if [[ $(curl --silent --output /dev/null --max-time 3 --write-out '%{http_code}' http://169.254.169.254/latest/meta-data/) == 200 ]]; then
    echo "This machine answers IMDSv1; demand IMDSv2 as docs/deploy.md says." >&2
    exit 1
fi

compose() {
    docker compose --project-name fraud --env-file "$root/.env" --env-file "$release/images.env" \
        --file "$release/compose.yaml" --file "$release/compose.ec2.yaml" "$@"
}

image=$(sed -n 's/^SCORER_IMAGE=//p' "$release/images.env")
registry=${image%%/*} # ACCOUNT.dkr.ecr.REGION.amazonaws.com
region=$(cut --delimiter . --fields 4 <<<"$registry")
aws ecr get-login-password --region "$region" | docker login --username AWS --password-stdin "$registry"
compose pull --quiet

if [[ $wanted != "$present" ]]; then
    printf '%s' "$present" >previous
    printf '%s' "$wanted" >present
fi
compose up --detach --wait --wait-timeout 600 --remove-orphans
echo "Release $wanted runs."
