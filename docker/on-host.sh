#!/usr/bin/env bash
# Runs a command on an EC2 machine by Systems Manager, waits for its end, and shows what it said. There is no open port and no SSH key.
#   docker/on-host.sh INSTANCE 'COMMAND'
set -euo pipefail
instance=$1
parameters=$(jq --null-input --arg command "$2" '{commands: [$command], executionTimeout: ["1800"]}')
command=$(aws ssm send-command --instance-ids "$instance" --document-name AWS-RunShellScript --parameters "$parameters" \
    --query Command.CommandId --output text)

status=Pending
for _ in {1..180}; do
    sleep 10
    # The command is not known there for a moment after it was sent.
    status=$(aws ssm get-command-invocation --command-id "$command" --instance-id "$instance" --query Status --output text || true)
    case "$status" in Success | Failed | Cancelled | TimedOut) break ;; esac
done
aws ssm get-command-invocation --command-id "$command" --instance-id "$instance" \
    --query '[StandardOutputContent, StandardErrorContent]' --output text
[[ $status == Success ]] || { echo "The command on $instance ended as $status."; exit 1; }
