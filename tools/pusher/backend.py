"""What a backend in Python does, with the library as it is published: prints one line of JSON."""

import json
import sys

import pusher

port, socket_id = int(sys.argv[1]), sys.argv[2]
client = pusher.Pusher(app_id="1001", key="k7", secret="k7-secret", host="127.0.0.1", port=port, ssl=False)
client.trigger("kitchen", "from-python", {"table": 7})
client.trigger(["kitchen", "private-office"], "not-to-one", "ünï", socket_id=socket_id)
client.trigger_batch([
    {"channel": "kitchen", "name": "batched", "data": "1"},
    {"channel": "kitchen", "name": "batched", "data": "2"},
])
client.send_to_user("ada", "from-python", {"n": 2})
refused = None
try:
    pusher.Pusher(app_id="1001", key="k7", secret="wrong", host="127.0.0.1", port=port, ssl=False).trigger("a", "b", "c")
except pusher.errors.PusherForbidden as error:
    refused = type(error).__name__
except pusher.errors.PusherError as error:
    refused = type(error).__name__
print(json.dumps({
    "channels": client.channels_info(),
    "private": client.channels_info("private-"),
    "kitchen": client.channel_info("kitchen", ["subscription_count"]),
    "refused": refused,
}))
