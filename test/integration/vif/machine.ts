// This machine as the contract of VIF drivers sees it: what plugging makes, found by the names of a port of its own.
import { randomUUID } from 'node:crypto';
import type { BoundVif, VifModule } from '#drivers/vif/driver.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { silentLog } from '#src/lib/log.ts';
import type { VifMachine } from '../../contract/vif-contract.ts';
import { OVS_OPTIONS, TEST_VIF } from '../../fakes/fake-vif.ts';

export const host = new LinuxHost();

export async function vsctl(...words: readonly string[]): Promise<string> {
  return (await host.run(['ovs-vsctl', '--timeout=10', ...words])).stdout.trim();
}

export function freshVif(change: Partial<BoundVif>): BoundVif {
  const id = randomUUID();
  const networkId = randomUUID();
  return { ...TEST_VIF, id, interfaceId: id, networkId, macAddress: macFrom(id), ...change };
}

function macFrom(id: string): string {
  return `fa:16:3e:${id.slice(0, 2)}:${id.slice(2, 4)}:${id.slice(4, 6)}`;
}

export async function machineFor(
  module: VifModule,
  change: Partial<BoundVif>,
  hasSwitch: boolean,
): Promise<VifMachine> {
  const vif = freshVif(change);
  const namespace = `vif-${vif.id.slice(0, 8)}`;
  const again = () => module.create({ host, log: silentLog, ovs: OVS_OPTIONS });
  const short = vif.id.slice(0, 11);
  const traces = async (): Promise<readonly string[]> => {
    const links = (await host.list('/sys/class/net'))
      .filter((name) => name.includes(short))
      .map((name) => `link ${name}`);
    if (!hasSwitch) return links.toSorted();
    const ports = (await vsctl('--bare', '--columns=name', 'find', 'Port'))
      .split('\n')
      .filter((name) => name.includes(short));
    const records = await vsctl('--bare', '--columns=_uuid', 'find', 'QoS', `external-ids:nova-port="${vif.id}"`);
    const queues = records.split('\n').flatMap((record, index) => (record === '' ? [] : [`queues ${index}`]));
    return [...links, ...ports.map((name) => `port ${name}`), ...queues].toSorted();
  };
  return {
    vif,
    driver: again(),
    again,
    traces,
    remove: async (trace) => {
      const [kind, name = ''] = trace.split(' ');
      if (kind === 'link') await host.run(['ip', 'link', 'delete', 'dev', name]);
      if (kind === 'port') await vsctl('del-port', name);
    },
    give: async (link) => {
      await host.run(['ip', 'netns', 'add', namespace]);
      await host.run(['ip', 'link', 'set', 'dev', link, 'netns', namespace, 'name', 'eth0', 'up']);
    },
    occupy: async (link) => {
      await host.run(['ip', 'link', 'add', 'name', link, 'type', 'bridge']);
    },
    [Symbol.asyncDispose]: async () => {
      await again().unplug(vif, AbortSignal.timeout(20_000));
      if ((await host.list('/run/netns')).includes(namespace)) await host.run(['ip', 'netns', 'delete', namespace]);
      for (const name of await host.list('/sys/class/net')) {
        const isOurs = name.includes(short) || name === `brq${vif.networkId.slice(0, 11)}`;
        if (isOurs) await host.run(['ip', 'link', 'delete', 'dev', name]);
      }
    },
  };
}
