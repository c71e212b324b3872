// The daemon comes before busy guests; nothing that it starts does.
import { readdir, readFile } from 'node:fs/promises';
import { getPriority } from 'node:os';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';
import { StockClient } from './stock-client.ts';

const LIMIT_MS = 60_000;

/** Of each thread, by its number; the first is the main one. */
async function priorities(pid: number): Promise<readonly number[]> {
  const threads = (await readdir(`/proc/${pid}/task`)).map(Number).sort((left, right) => left - right);
  return threads.map((thread) => getPriority(thread));
}

describeWith({ root: true, commands: ['lxc', 'lxc-start', 'busybox', 'setpriv'] }, 'priorities', () => {
  let daemon: TestDaemon;
  let client: StockClient;

  beforeAll(async () => {
    daemon = await TestDaemon.start();
    client = await StockClient.for(daemon);
    await daemon.addImage();
    await daemon.launch('p1');
    await daemon.ready('p1');
  }, LIMIT_MS);
  afterAll(() => daemon[Symbol.asyncDispose](), LIMIT_MS);

  it('are higher for the daemon’s main thread', async () => {
    expect((await priorities(daemon.pid))[0]).toBe(-10);
  });

  it('are normal for a container, its monitor and its commands', async () => {
    const { metadata } = await daemon.call('GET', '/1.0/instances/p1/state');
    const init = Number(metadata.pid);
    const status = await readFile(`/proc/${init}/status`, 'utf8');
    const monitor = Number(/^PPid:\s*(\d+)$/m.exec(status)?.[1]);

    expect(await priorities(init)).toEqual([0]);
    expect((await priorities(monitor))[0]).toBe(0);
    const stat = (await client.ends(['exec', 'p1', '--', 'cat', '/proc/self/stat'])).stdout.toString();
    // the 19th field
    expect(stat.split(' ')[18]).toBe('0');
  });

  it('are normal for the server of proxy devices', async () => {
    const listen = 'listen=tcp:127.0.0.1:18099';
    const proxy = ['config', 'device', 'add', 'p1', 'web', 'proxy', listen, 'connect=tcp:127.0.0.1:80'];
    expect((await client.ends(proxy)).code).toBe(0);
    const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
    const servers: number[] = [];
    for (const pid of pids) {
      const line = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
      if (line.includes('forward-server') && line.includes(daemon.root)) servers.push(Number(pid));
    }

    expect(servers.length).toBe(1);
    for (const server of servers) expect((await priorities(server))[0]).toBe(0);
  });
});
