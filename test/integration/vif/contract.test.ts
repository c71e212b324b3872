// The contract of VIF drivers on this machine's own interfaces, with a real Open vSwitch whose daemon forwards the packets itself.
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { BoundVif } from '#drivers/vif/driver.ts';
import { vifDrivers } from '#drivers/vif/registry.ts';
import { poll } from '#src/lib/wait.ts';
import { vifContract, type VifMachine } from '../../contract/vif-contract.ts';
import { describeWith } from '../support.ts';
import { OvsDaemons } from '../switches.ts';
import { host, machineFor, vsctl } from './machine.ts';

const BRIDGE = 'ltvif0';
const DETAILS = { bridge_name: BRIDGE, datapath_type: 'netdev' };
const HYBRID = { ...DETAILS, ovs_hybrid_plug: true };
const RATE = { averageBytes: 500_000, peakBytes: null, burstBytes: null };
const signal = (): AbortSignal => AbortSignal.timeout(20_000);

describeWith({ root: true, commands: ['ip'] }, 'VIF drivers without a switch', () => {
  describe('bridge', () => vifContract(() => machineFor(vifDrivers.bridge, { type: 'bridge', bridge: null }, false)));
  describe('tap', () => vifContract(() => machineFor(vifDrivers.tap, { type: 'tap' }, false)));
});

/** A guest of which only the network is there. */
class Guest implements AsyncDisposable {
  readonly namespace: string;
  readonly #machine: VifMachine;
  readonly #address: string;

  private constructor(machine: VifMachine, address: string) {
    this.#machine = machine;
    this.#address = address;
    this.namespace = `vif-${machine.vif.id.slice(0, 8)}`;
  }

  static async plugged(change: Partial<BoundVif>, address: string): Promise<Guest> {
    const guest = new Guest(await machineFor(vifDrivers.ovs, change, true), address);
    await guest.plug();
    return guest;
  }

  async plug(): Promise<void> {
    const { hostInterface } = await this.#machine.driver.plug(this.#machine.vif, 'eth0', signal());
    await this.#machine.give(hostInterface);
    await host.run(['ip', '-netns', this.namespace, 'address', 'add', this.#address, 'dev', 'eth0']);
  }

  /** As when its processes die with its network: the pair goes, and nobody tells Open vSwitch. */
  async lose(): Promise<void> {
    await host.run(['ip', 'netns', 'delete', this.namespace]);
    const tap = `/sys/class/net/tap${this.#machine.vif.id.slice(0, 11)}`;
    await poll(async () => !(await host.exists(tap)) || undefined, 20, signal());
  }

  async run(script: string): Promise<void> {
    await host.run(['ip', 'netns', 'exec', this.namespace, 'sh', '-c', script], { signal: signal() });
  }

  async reach(address: string): Promise<void> {
    const ping = async () =>
      await this.run(`busybox ping -c 1 -W 1 ${address}`).then(
        () => true,
        () => undefined,
      );
    await poll(ping, 50, signal());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#machine[Symbol.asyncDispose]();
  }
}

/** By TCP; seconds. */
async function transfer(from: Guest, to: Guest, address: string, bytes: number): Promise<number> {
  const received = to.run('busybox nc -l -p 7007 -e wc -c');
  await poll(
    () =>
      to.run('busybox netstat -ltn | grep -q :7007').then(
        () => true,
        () => undefined,
      ),
    20,
    signal(),
  );
  const since = performance.now();
  await from.run(`head -c ${bytes} /dev/zero | timeout 15 busybox nc ${address} 7007 | grep -q '^${bytes}$'`);
  await received;
  return (performance.now() - since) / 1000;
}

const commands = ['ip', 'tc', 'nft', 'busybox', 'ovs-vsctl', 'ovs-vswitchd', 'ovsdb-server'];

describeWith({ root: true, commands }, 'VIF driver of Open vSwitch', () => {
  let switches: OvsDaemons;

  beforeAll(async () => {
    switches = await OvsDaemons.start(join(await mkdtemp(join(tmpdir(), 'vif-')), 'ovs'));
    await vsctl('add-br', BRIDGE, '--', 'set', 'Bridge', BRIDGE, 'datapath_type=netdev');
  }, 30_000);
  afterAll(async () => {
    await vsctl('--if-exists', 'del-br', BRIDGE);
    await switches[Symbol.asyncDispose]();
  }, 30_000);

  describe('plain', () => vifContract(() => machineFor(vifDrivers.ovs, { details: DETAILS }, true)));
  describe('hybrid', () => vifContract(() => machineFor(vifDrivers.ovs, { details: HYBRID }, true)));
  describe('with limits', () => {
    vifContract(() => machineFor(vifDrivers.ovs, { details: DETAILS, rates: { inbound: RATE, outbound: null } }, true));
  });

  describe.each([
    ['plain', DETAILS],
    ['hybrid', HYBRID],
  ])('%s ports', (_name, details) => {
    it('carry the packets of guests, also after kill -9 of ovs-vswitchd', async () => {
      await using one = await Guest.plugged({ details }, '10.98.1.1/24');
      await using two = await Guest.plugged({ details }, '10.98.1.2/24');

      await one.reach('10.98.1.2');
      expect(await transfer(one, two, '10.98.1.2', 1_000_000)).toBeLessThan(5);
      await switches.restartSwitch();

      await one.reach('10.98.1.2');
      expect(await transfer(two, one, '10.98.1.1', 1_000_000)).toBeLessThan(5);
    }, 60_000);

    it('hold what a guest receives to its limit, also after a restart of ovs-vswitchd', async () => {
      await using one = await Guest.plugged({ details, rates: { inbound: RATE, outbound: null } }, '10.98.1.1/24');
      await using two = await Guest.plugged({ details }, '10.98.1.2/24');
      await one.reach('10.98.1.2');

      expect(await transfer(two, one, '10.98.1.1', 1_500_000)).toBeGreaterThan(2);
      await switches.restartSwitch();
      await one.reach('10.98.1.2');

      expect(await transfer(two, one, '10.98.1.1', 1_500_000)).toBeGreaterThan(2);
      expect(await transfer(one, two, '10.98.1.2', 1_500_000)).toBeLessThan(2);
    }, 60_000);

    it('work again with a new pair under the old name', async () => {
      await using one = await Guest.plugged({ details }, '10.98.1.1/24');
      await using two = await Guest.plugged({ details }, '10.98.1.2/24');
      await one.reach('10.98.1.2');
      await two.lose();

      await two.plug();

      await one.reach('10.98.1.2');
    }, 60_000);
  });
});
