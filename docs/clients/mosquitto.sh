#!/bin/sh
# Sends as telemetry what devices publish under site/DEVICE/telemetry (an object with cpu_percent and memory_percent).
# Needs mosquitto_sub, jq, and `ingestcloud-send` (beside this file) in the PATH. A session with an id and QoS 1 makes the
# broker keep messages that are published while this script is not running. Add your broker's options: -h, -u, --cafile …
set -eu
mosquitto_sub "$@" --id ingestcloud --disable-clean-session --qos 1 -t 'site/+/telemetry' -F '%J' |
  # Some versions of mosquitto write the time as …Z+0000.
  jq --unbuffered -c '[{kind: "telemetry", timestamp: (.tst | sub("Z(?=[+-])"; "")),
    data: (.payload + {device: (.topic | split("/")[1])})}]' |
  while read -r batch; do printf '%s' "$batch" | ingestcloud-send; done
