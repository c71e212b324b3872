// The VIF drivers on a machine in memory.
import { describe } from 'vitest';
import type { BoundVif, VifModule } from '#drivers/vif/driver.ts';
import { vifDrivers } from '#drivers/vif/registry.ts';
import { silentLog } from '#src/lib/log.ts';
import { OVS_OPTIONS, TEST_VIF } from '../fakes/fake-vif.ts';
import { FakeVifMachine } from '../fakes/fake-vif-machine.ts';
import { vifContract, type VifMachine } from './vif-contract.ts';

const RATE = { averageBytes: 1000, peakBytes: null, burstBytes: null };

function machineFor(module: VifModule, change: Partial<BoundVif>): VifMachine {
  const host = new FakeVifMachine({ links: ['brqshared'] });
  const vif = { ...TEST_VIF, ...change };
  const before = new Set(host.linkNames());
  const again = () => module.create({ host, log: silentLog, ovs: OVS_OPTIONS });
  return {
    vif,
    driver: again(),
    again,
    traces: () =>
      Promise.resolve([
        ...host.linkNames().flatMap((name) => (before.has(name) ? [] : [`link ${name}`])),
        ...[...host.switch.ports.keys()].map((name) => `port ${name}`),
        ...[...host.switch.queues.keys()].map((_record, index) => `queues ${index}`),
      ]),
    remove: async (trace) => {
      const [kind, name = ''] = trace.split(' ');
      if (kind === 'link') host.removeLink(name);
      if (kind === 'port') host.switch.removePort(name);
    },
    give: async (link) => host.give(link),
    occupy: async (link) => host.addLink(link),
    [Symbol.asyncDispose]: async () => {},
  };
}

const CASES: Readonly<Record<string, readonly [VifModule, Partial<BoundVif>]>> = {
  'bridge, in a bridge of the agent': [vifDrivers.bridge, { type: 'bridge', bridge: 'brqshared' }],
  ovs: [vifDrivers.ovs, { bridge: 'br-int' }],
  'ovs with limits': [vifDrivers.ovs, { bridge: 'br-int', rates: { inbound: RATE, outbound: RATE } }],
  'ovs, hybrid': [vifDrivers.ovs, { bridge: 'br-int', details: { ovs_hybrid_plug: true } }],
  'ovs, in a bridge of a trunk': [vifDrivers.ovs, { details: { bridge_name: 'tbr-7f3c2a10-9' } }],
  tap: [vifDrivers.tap, { type: 'tap', bridge: null }],
};

describe.each(Object.entries(CASES))('%s', (_name, [module, change]) => {
  vifContract(async () => machineFor(module, change));
});
