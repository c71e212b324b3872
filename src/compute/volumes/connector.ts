// What Cinder is told of this host, so that its back ends let the host in: as os-brick tells it.
import type { Host } from '#src/host/host.ts';

type Facts = Readonly<Record<string, unknown>>;

/** Asked anew for every attachment: initiators may be configured while the service runs. */
export async function connectorFacts(
  host: Pick<Host, 'run' | 'exists' | 'readFile'>,
  own: { readonly host: string; readonly ip: string },
  signal: AbortSignal,
): Promise<Facts> {
  const [machine, initiator, nqn] = await Promise.all([
    host.run(['uname', '--machine'], { signal }),
    textOf(host, '/etc/iscsi/initiatorname.iscsi'),
    textOf(host, '/etc/nvme/hostnqn'),
  ]);
  const name = /^InitiatorName=(?<name>\S+)/m.exec(initiator)?.groups?.['name'];
  return {
    platform: machine.stdout.trim(),
    os_type: 'linux',
    ip: own.ip,
    host: own.host,
    multipath: false,
    do_local_attach: false,
    ...(name !== undefined && { initiator: name }),
    ...(nqn.trim() !== '' && { nqn: nqn.trim() }),
  };
}

async function textOf(host: Pick<Host, 'exists' | 'readFile'>, path: string): Promise<string> {
  return (await host.exists(path)) ? await host.readFile(path) : '';
}
