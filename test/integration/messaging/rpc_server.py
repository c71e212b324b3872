"""An RPC server of stock oslo.messaging; says on stdout, a JSON object per line, what it sees.

argv: transport_url topic server
"""
import json
import sys
import threading
import time

import oslo_messaging
from oslo_config import cfg

import interop_exceptions


def say(**event):
    sys.stdout.write(json.dumps(event) + '\n')
    sys.stdout.flush()


class Endpoint:
    target = oslo_messaging.Target(version='3.1')

    def echo(self, ctxt, **kwargs):
        return {'context': {k: v for k, v in ctxt.items()}, 'args': kwargs}

    def note(self, ctxt, **kwargs):
        say(event='note', args=kwargs, request_id=ctxt.get('request_id'))

    def slow(self, ctxt, seconds):
        time.sleep(seconds)
        return 'done'

    def fail(self, ctxt, instance_id):
        raise interop_exceptions.InstanceNotFound(instance_id=instance_id)

    def fail_builtin(self, ctxt):
        raise ValueError('no such value', 7)

    def none(self, ctxt):
        return None


class Other:
    target = oslo_messaging.Target(namespace='other', version='1.0')

    def where(self, ctxt):
        return 'other'


def main():
    url, topic, server = sys.argv[1:4]
    conf = cfg.CONF
    conf([])
    transport = oslo_messaging.get_rpc_transport(conf, url=url)
    target = oslo_messaging.Target(exchange='nova', topic=topic, server=server)
    rpc = oslo_messaging.get_rpc_server(transport, target, [Endpoint(), Other()], executor='threading')
    rpc.start()
    say(event='ready')
    threading.Thread(target=lambda: (sys.stdin.read(), rpc.stop(), rpc.wait(), say(event='stopped')), daemon=False).start()


main()
