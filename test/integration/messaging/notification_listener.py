"""A notification listener of stock oslo.messaging; prints a JSON line per notification.

argv: transport_url topic
"""
import json
import sys
import threading

import oslo_messaging
from oslo_config import cfg


def say(**event):
    sys.stdout.write(json.dumps(event) + '\n')
    sys.stdout.flush()


class Endpoint:
    def info(self, ctxt, publisher_id, event_type, payload, metadata):
        say(event='info', context=ctxt, publisher_id=publisher_id, event_type=event_type, payload=payload,
            metadata=metadata)

    def error(self, ctxt, publisher_id, event_type, payload, metadata):
        say(event='error', event_type=event_type)


def main():
    conf = cfg.CONF
    conf([])
    transport = oslo_messaging.get_notification_transport(conf, url=sys.argv[1])
    targets = [oslo_messaging.Target(exchange='nova', topic=sys.argv[2])]
    listener = oslo_messaging.get_notification_listener(transport, targets, [Endpoint()], executor='threading')
    listener.start()
    say(event='ready')
    threading.Thread(target=lambda: (sys.stdin.read(), listener.stop(), listener.wait()), daemon=False).start()


main()
