#!/bin/sh
# The command of the redis container: its configuration with who may log in, in a file that only the server reads.
# The rights are those of stack/access.py; a test compares them.
set -eu
umask 077
commands='resetchannels +@all -@admin -@dangerous'
{
    echo 'include /etc/collect-ops/redis.conf'
    echo 'dir /data'
    printf 'requirepass "%s"\n' "$REDIS_PASSWORD"
    printf 'user collect_control reset on >%s ~collect:* %s +info\n' "$REDIS_CONTROL_PASSWORD" "$commands"
    printf 'user collect_node reset on >%s %s %s\n' "$REDIS_NODE_PASSWORD" \
        '~collect:lease:* ~collect:limit:* ~collect:dedup:* ~collect:wake:* ~collect:wakes:* ~collect:priority:* ~collect:node:*' \
        "$commands"
} >/tmp/redis.conf
exec redis-server /tmp/redis.conf
