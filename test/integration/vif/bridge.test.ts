// The bridge VIF driver on this machine's own links.
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { BoundVif, VifDriver, VifRates } from '#drivers/vif/driver.ts';
import { vifDrivers } from '#drivers/vif/registry.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { silentLog } from '#src/lib/log.ts';
import { OVS_OPTIONS, TEST_VIF } from '../../fakes/fake-vif.ts';
import { describeWith } from '../support.ts';

const host = new LinuxHost();
const NO_RATES: VifRates = { inbound: null, outbound: null };
const signal = (): AbortSignal => AbortSignal.timeout(20_000);

interface Link {
  readonly ifname: string;
  readonly mtu: number;
  readonly master?: string;
  readonly address: string;
  readonly flags: readonly string[];
  readonly linkinfo?: { readonly info_kind: string; readonly info_data?: Readonly<Record<string, unknown>> };
}

async function link(name: string): Promise<Link | undefined> {
  const { stdout, exitCode } = await host.run(['ip', '-details', '-json', 'link', 'show', 'dev', name], {
    okExitCodes: [0, 1],
  });
  return exitCode === 0 ? (JSON.parse(stdout) as readonly Link[])[0] : undefined;
}

/** A guest of which only the network is there, and a transfer of it with this process. */
class Guest {
  readonly #namespace: string;

  constructor(namespace: string) {
    this.#namespace = namespace;
  }

  async join(bridge: string): Promise<void> {
    await host.run(['ip', 'address', 'add', '10.97.1.1/24', 'dev', bridge]);
    await host.run(['ip', '-netns', this.#namespace, 'address', 'add', '10.97.1.2/24', 'dev', 'eth0']);
  }

  /** Seconds. */
  async receive(bytes: number): Promise<number> {
    return await this.#transfer(
      (port) => `busybox nc 10.97.1.1 ${port} </dev/null | wc -c | grep -q '^${bytes}$'`,
      bytes,
    );
  }

  async send(bytes: number): Promise<number> {
    return await this.#transfer((port) => `head -c ${bytes} /dev/zero | busybox nc 10.97.1.1 ${port}`, 0);
  }

  async #transfer(script: (port: number) => string, answerBytes: number): Promise<number> {
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.resume();
      if (answerBytes > 0) socket.end(Buffer.alloc(answerBytes));
      else socket.once('end', () => socket.end());
    });
    server.listen(0, '10.97.1.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const since = performance.now();
    await host.run(['ip', 'netns', 'exec', this.#namespace, 'sh', '-c', script(port)], { signal: signal() });
    server.close();
    return (performance.now() - since) / 1000;
  }
}

describeWith({ root: true, commands: ['ip', 'tc', 'nft', 'busybox'] }, 'bridge VIF driver', () => {
  let vif: BoundVif;
  let driver: VifDriver;
  let names: { readonly tap: string; readonly peer: string; readonly bridge: string };

  beforeEach(() => {
    const [id, networkId] = [randomUUID(), randomUUID()];
    vif = {
      ...TEST_VIF,
      id,
      networkId,
      macAddress: 'fa:16:3e:01:02:03',
      type: 'bridge',
      bridge: null,
      mtu: 1400,
      details: {},
      rates: NO_RATES,
    };
    driver = vifDrivers.bridge.create({ host, log: silentLog, ovs: OVS_OPTIONS });
    names = { tap: `tap${id.slice(0, 11)}`, peer: `tin${id.slice(0, 11)}`, bridge: `brq${networkId.slice(0, 11)}` };
  });

  afterEach(async () => {
    await driver.unplug(vif, signal());
    if (await link(names.bridge)) await host.run(['ip', 'link', 'delete', 'dev', names.bridge]);
  });

  it('plugs what the agent and the container expect', async () => {
    const nic = await driver.plug(vif, 'eth0', signal());

    expect(nic).toMatchObject({ hostInterface: names.peer, guestInterface: 'eth0', mtu: 1400 });
    const tap = await link(names.tap);
    expect(tap).toMatchObject({ master: names.bridge, mtu: 1400, linkinfo: { info_kind: 'veth' } });
    expect(tap?.flags).toContain('UP');
    expect(await link(names.peer)).toMatchObject({ address: 'fa:16:3e:01:02:03', mtu: 1400 });
    expect(await link(names.bridge)).toMatchObject({
      linkinfo: { info_kind: 'bridge', info_data: { stp_state: 0, forward_delay: 0 } },
    });
    expect((await host.readFile(`/proc/sys/net/ipv6/conf/${names.tap}/disable_ipv6`)).trim()).toBe('1');
  });

  it('plugs again what is there, and mends what is wrong', async () => {
    await driver.plug(vif, 'eth0', signal());
    await host.run(['ip', 'link', 'set', 'dev', names.tap, 'nomaster', 'down']);

    await driver.plug({ ...vif, macAddress: 'fa:16:3e:0a:0b:0c' }, 'eth0', signal());

    expect(await link(names.tap)).toMatchObject({ master: names.bridge });
    expect(await link(names.peer)).toMatchObject({ address: 'fa:16:3e:0a:0b:0c' });
  });

  it('leaves the end alone that is in a container', async () => {
    const namespace = `vif-${vif.id.slice(0, 8)}`;
    await host.run(['ip', 'netns', 'add', namespace]);
    try {
      await driver.plug(vif, 'eth0', signal());
      await host.run(['ip', 'link', 'set', 'dev', names.peer, 'netns', namespace, 'name', 'eth0']);

      await driver.plug(vif, 'eth0', signal());

      const { stdout } = await host.run(['ip', '-netns', namespace, '-json', 'link', 'show', 'dev', 'eth0']);
      expect(JSON.parse(stdout)).toMatchObject([{ address: 'fa:16:3e:01:02:03' }]);
    } finally {
      await host.run(['ip', 'netns', 'delete', namespace]);
    }
  });

  it('holds what a guest receives and sends to its limits, and lifts them', async () => {
    const namespace = `vif-${vif.id.slice(0, 8)}`;
    const rate = { averageBytes: 500_000, peakBytes: null, burstBytes: null };
    await host.run(['ip', 'netns', 'add', namespace]);
    try {
      await driver.plug({ ...vif, rates: { inbound: rate, outbound: rate } }, 'eth0', signal());
      await host.run(['ip', 'link', 'set', 'dev', names.peer, 'netns', namespace, 'name', 'eth0', 'up']);
      const guest = new Guest(namespace);
      await guest.join(names.bridge);

      const [inbound, outbound] = [await guest.receive(1_500_000), await guest.send(3_000_000)];
      await vifDrivers.bridge.create({ host, log: silentLog, ovs: OVS_OPTIONS }).plug(vif, 'eth0', signal());

      expect(inbound).toBeGreaterThan(2);
      expect(outbound).toBeGreaterThan(2);
      expect(await guest.receive(1_500_000)).toBeLessThan(1);
      expect(await guest.send(3_000_000)).toBeLessThan(1);
    } finally {
      await host.run(['ip', 'netns', 'delete', namespace]);
    }
  });

  it('leaves no policer of an interface that went', async () => {
    const rate = { averageBytes: 500_000, peakBytes: 900_000, burstBytes: 2_000_000 };
    await driver.plug({ ...vif, rates: { inbound: rate, outbound: rate } }, 'eth0', signal());
    const policers = async (): Promise<string> => (await host.run(['nft', 'list', 'table', 'netdev', 'nova'])).stdout;
    expect(await policers()).toContain(names.tap);

    await driver.unplug(vif, signal());

    expect(await policers()).not.toContain(names.tap);
  });

  it('unplugs both ends, twice, and leaves the bridge to the agent', async () => {
    await driver.plug(vif, 'eth0', signal());

    await driver.unplug(vif, signal());
    await driver.unplug(vif, signal());

    expect(await link(names.tap)).toBeUndefined();
    expect(await link(names.peer)).toBeUndefined();
    expect(await link(names.bridge)).toBeDefined();
  });

  it('leaves nothing when it fails half-way', async () => {
    // A peer without its tap: somebody else's, so the pair cannot be made.
    await host.run(['ip', 'link', 'add', 'name', names.peer, 'type', 'bridge']);

    await expect(driver.plug(vif, 'eth0', signal())).rejects.toThrow('File exists');

    expect(await link(names.tap)).toBeUndefined();
    expect(await link(names.bridge)).toBeUndefined();
    expect(await link(names.peer)).toMatchObject({ linkinfo: { info_kind: 'bridge' } });
    await host.run(['ip', 'link', 'delete', 'dev', names.peer]);
  });
});
