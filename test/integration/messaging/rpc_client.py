"""An RPC client of stock oslo.messaging; takes a JSON command per line and answers each with a JSON line.

argv: transport_url
"""
import json
import sys
import threading

import oslo_messaging
from oslo_config import cfg

import interop_exceptions  # noqa: F401  importable for allowed_remote_exmods

LOCK = threading.Lock()


def say(**answer):
    with LOCK:
        sys.stdout.write(json.dumps(answer) + '\n')
        sys.stdout.flush()


def run(transport, command):
    target = oslo_messaging.Target(exchange='nova', topic=command['topic'], server=command.get('server'),
                                   namespace=command.get('namespace'), version=command.get('version', '1.0'),
                                   fanout=command.get('fanout'))
    client = oslo_messaging.RPCClient(transport, target, timeout=command.get('timeout', 10),
                                      call_monitor_timeout=command.get('monitor'))
    try:
        send = client.call if command['op'] == 'call' else client.cast
        result = send(command.get('context', {}), command['method'], **command.get('args', {}))
        say(id=command['id'], result=result)
    except Exception as error:
        say(id=command['id'], error=type(error).__name__, module=type(error).__module__, message=str(error),
            args=[str(a) for a in error.args], kwargs=getattr(error, 'kwargs', {}),
            exc_type=getattr(error, 'exc_type', None))


def main():
    conf = cfg.CONF
    conf([])
    transport = oslo_messaging.get_rpc_transport(conf, url=sys.argv[1],
                                                 allowed_remote_exmods=['interop_exceptions'])
    say(event='ready')
    for line in sys.stdin:
        threading.Thread(target=run, args=(transport, json.loads(line)), daemon=True).start()


main()
