// A daemon that is killed in the middle of changing nics of a running container: at its next start, host, container and record agree.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { run, TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';

const BRIDGE = 'lthealbr';
const FIXED = 'ltheal0';
const PLUGGED = 'ltheal1';
const ROUTE = '10.96.7.0/24';

describeWith({ root: true, commands: ['lxc-start', 'busybox', 'ip', 'nft', 'tc'] }, 'nics and a killed daemon', () => {
  let daemon: TestDaemon;

  beforeAll(async () => {
    await run('ip', ['link', 'add', BRIDGE, 'type', 'bridge']);
    await run('ip', ['link', 'set', BRIDGE, 'up']);
    daemon = await TestDaemon.start();
    await daemon.addImage();
    await daemon.launch('healed', { devices: { fixed: fixed({}) } });
    await daemon.ready('healed');
  });

  afterAll(async () => {
    await daemon[Symbol.asyncDispose]();
    await run('ip', ['link', 'delete', BRIDGE]);
  });

  const fixed = (options: Record<string, string>) => {
    return { type: 'nic', nictype: 'bridged', parent: BRIDGE, host_name: FIXED, name: 'net0', ...options };
  };
  const plugged = { type: 'nic', nictype: 'p2p', host_name: PLUGGED, name: 'net1', 'limits.max': '5Mbit' };
  const limited = fixed({
    'limits.ingress': '8Mbit',
    'limits.egress': '9Mbit',
    'security.mac_filtering': 'true',
    'security.port_isolation': 'true',
    'ipv4.routes': ROUTE,
  });

  async function put(devices: Record<string, object>): Promise<unknown> {
    const { metadata } = await daemon.call('GET', '/1.0/instances/healed');
    return daemon.operate('PUT', '/1.0/instances/healed', { ...metadata, devices });
  }

  const output = async (program: string, ...args: string[]) => (await run(program, args)).stdout;

  /** What is there of the nics, as the host and the container show it. */
  async function found() {
    const chains = await output('nft', 'list', 'chains');
    const tc = await output('tc', 'class', 'show', 'dev', FIXED);
    const { network } = await daemon.state('healed');
    return {
      ingress: tc.includes('8Mbit'),
      chains: [...chains.matchAll(/chain (\S+\.healed\.\S+)/g)]
        .map((match) => match[1] ?? '')
        .toSorted((a, b) => (a < b ? -1 : 1)),
      isolated: (await output('bridge', '-d', 'link', 'show', 'dev', FIXED)).includes('isolated on'),
      route: (await output('ip', 'route')).includes(ROUTE),
      plugged: [existsSync(`/sys/class/net/${PLUGGED}`), network.net1 !== undefined],
    };
  }

  /** What there has to be by the record. */
  async function recorded() {
    const { metadata } = await daemon.call('GET', '/1.0/instances/healed');
    const has = metadata.devices.fixed['limits.ingress'] === '8Mbit';
    const plug = metadata.devices.plugged !== undefined;
    const host = metadata.config['volatile.plugged.host_name'] !== undefined;
    expect(host).toBe(plug);
    const own = ['fwd.healed.fixed', 'in.healed.fixed', 'limit.healed.fixed'];
    return {
      ingress: has,
      chains: [...(has ? own : []), ...(plug ? ['limit.healed.plugged'] : [])],
      isolated: has,
      route: has,
      plugged: [plug, plug],
    };
  }

  it('agree whenever it happens', async () => {
    const note = join(daemon.root, 'instances', 'healed', 'live-change');
    let interrupted = 0;
    // from the moment on at which it has begun
    for (const delay of [0, 15, 50, 400]) {
      const { metadata } = await daemon.call('GET', '/1.0/instances/healed');
      const isLimited = metadata.devices.plugged !== undefined;
      const change = put(isLimited ? { fixed: fixed({}) } : { fixed: limited, plugged });
      change.catch(() => undefined); // its daemon is killed
      for (let waited = 0; !existsSync(note) && waited < 2000; waited++) await sleep(1);
      await sleep(delay);
      await daemon.kill();
      if (existsSync(note)) interrupted++;
      await daemon.boot();

      expect(await found()).toEqual(await recorded());
      expect(existsSync(note)).toBe(false);
    }
    expect(interrupted).toBeGreaterThan(0);
    await put({ fixed: limited, plugged });
    expect(await found()).toEqual(await recorded());
    await put({ fixed: fixed({}) });
    expect(await found()).toEqual(await recorded());
  });
});
