// Consoles on a real Nova: the serial one through the stock nova-serialproxy, as a browser uses it; the log over restarts.
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { execIn } from '../integration/guest-exec.ts';
import { run } from './lab/commands.ts';
import { consoleLog, waitForStatus } from './lab/first-server.ts';
import { overrideFile, startCompute, startEngine } from './lab/node.ts';
import { installPackages } from './lab/packages.ts';
import { portAnswers } from './lab/processes.ts';
import { expectNothingLeft, type Residue, takeResidue } from './lab/residue.ts';
import { KEYSTONE_URL, PASSWORD, PORTS, REGION } from './lab/settings.ts';
import { activeServer, cloud, deleteServer, engine, paths, processes } from './lab/suite.ts';

const PROXY = 'nova-serialproxy';
const URL_BASE = `ws://127.0.0.1:${PORTS.serialProxy}/`;
const CREDENTIALS = {
  OS_AUTH_URL: KEYSTONE_URL,
  OS_IDENTITY_API_VERSION: '3',
  OS_REGION_NAME: REGION,
  OS_USERNAME: 'admin',
  OS_PASSWORD: PASSWORD,
  OS_PROJECT_NAME: 'admin',
  OS_USER_DOMAIN_NAME: 'Default',
  OS_PROJECT_DOMAIN_NAME: 'Default',
};

let before: Residue;
let id: string;
let name: string;

const override = (): string =>
  overrideFile(
    paths,
    'serial-console',
    `[serial_console]
enabled = true
base_url = ${URL_BASE}
serialproxy_host = 127.0.0.1
serialproxy_port = ${PORTS.serialProxy}
port_range = 10900:10910
`,
  );

async function startProxy(): Promise<void> {
  await installPackages(['nova-consoleproxy']);
  processes.start({
    name: PROXY,
    argv: [PROXY, '--config-file', paths.novaConf, '--config-file', override()],
  });
  await processes.waitFor(PROXY, () => portAnswers(PORTS.serialProxy));
}

/** As a user asks for it. */
async function consoleUrl(): Promise<string> {
  const shown = await run(['openstack', 'console', 'url', 'show', '--serial', '-f', 'value', '-c', 'url', id], {
    env: CREDENTIALS,
  });
  return shown.trim();
}

interface Sitting {
  readonly socket: WebSocket;
  readonly seen: () => string;
}

/** As Horizon's page connects. */
async function sitDown(url: string): Promise<Sitting> {
  const socket = new WebSocket(url, ['binary', 'base64'], { origin: `http://127.0.0.1:${PORTS.serialProxy}` });
  // websockify ends with a code that is not for the wire
  socket.on('error', () => {});
  let seen = '';
  socket.on('message', (data: Buffer) => {
    seen += data.toString();
  });
  await once(socket, 'open');
  return { socket, seen: () => seen };
}

/** In binary messages: websockify ends sessions with others. */
function type({ socket }: Sitting, text: string): void {
  socket.send(Buffer.from(text));
}

async function says({ seen }: Sitting, what: string | RegExp): Promise<void> {
  await expect.poll(seen, { timeout: 20_000, interval: 50 }).toMatch(what);
}

/** Whether the proxy refuses the URL: it lets in and closes without a word. */
async function isRefused(url: string): Promise<boolean> {
  const socket = new WebSocket(url, ['binary']);
  let seen = 0;
  socket.on('message', () => {
    seen += 1;
  });
  socket.on('error', () => {});
  await once(socket, 'close');
  return seen === 0;
}

beforeAll(async () => {
  before = await takeResidue(cloud, paths);
  const server = await activeServer({ name: 'console', network: 'none' });
  id = server.id;
  name = server['OS-EXT-SRV-ATTR:instance_name'];
});

afterAll(async () => {
  await processes.stop(PROXY);
  await deleteServer(id);
  await processes.stop('nova-compute-lxd');
  startCompute(paths, processes);
});

describe('serial consoles that are not enabled', () => {
  it('are refused', async () => {
    await expect(consoleUrl()).rejects.toThrow(/Console type serial is not available|Unavailable console type serial/);
  });
});

describe('a serial console', () => {
  let shell: Promise<unknown>;

  beforeAll(async () => {
    await processes.stop('nova-compute-lxd');
    startCompute(paths, processes, [override()]);
    await startProxy();
    // what a getty is in a bigger image
    shell = execIn(
      engine,
      name,
      ['sh', '-c', 'exec sh </dev/console >/dev/console 2>&1'],
      AbortSignal.timeout(590_000),
    );
    shell.catch(() => {}); // its end is waited for by the last test
  });

  it('takes a command through nova-serialproxy and shows the answer', async () => {
    const url = await consoleUrl();
    expect(url).toMatch(/^ws:\/\/127\.0\.0\.1:6083\/\?token=[0-9a-f-]{36}$/);
    const sitting = await sitDown(url);
    await says(sitting, 'lightervisor-test: tick');

    type(sitting, 'echo answer-$((6*7))\r');

    await says(sitting, 'answer-42');
    sitting.socket.close();
  });

  it('passes on keys that detach other clients', async () => {
    const sitting = await sitDown(await consoleUrl());
    await says(sitting, 'lightervisor-test: tick');

    type(sitting, 'echo begun\r');
    await says(sitting, /begun\r\n/);
    type(sitting, '\x01q\x15echo still-$((40+2))\r');

    await says(sitting, 'still-42');
    sitting.socket.close();
  });

  it('is taken over by the same user from elsewhere, with the same token', async () => {
    const url = await consoleUrl();
    const first = await sitDown(url);
    await says(first, 'lightervisor-test: tick');

    const second = await sitDown(url);
    await once(first.socket, 'close');
    type(second, 'echo second-$((1+1))\r');

    await says(second, 'second-2');
    await expect.poll(() => first.seen(), { timeout: 10_000 }).toContain('another client has taken over');
    second.socket.close();
  });

  it('is not there for a token that Nova does not know', async () => {
    expect(await isRefused(`${URL_BASE}?token=00000000-0000-4000-8000-000000000000`)).toBe(true);
  });

  it('ends with the compute when that is killed, and works again with the next one', async () => {
    const url = await consoleUrl();
    const sitting = await sitDown(url);
    await says(sitting, 'lightervisor-test: tick');

    await processes.kill('nova-compute-lxd');
    await once(sitting.socket, 'close');
    startCompute(paths, processes, [override()]);
    const next = await sitDown(await consoleUrl());
    type(next, 'echo next-$((1+2))\r');

    await says(next, 'next-3');
    type(next, 'exit\r');
    await shell;
    next.socket.close();
  });
});

describe('the console log', () => {
  it('is as long as asked for', async () => {
    const log = await consoleLog(cloud, id, 3);

    expect(log.split('\n')).toHaveLength(3);
  });

  it('outlives the stop of the server, and of engine and compute', async () => {
    await cloud.action(id, { 'os-stop': null });
    await waitForStatus(cloud, id, 'SHUTOFF');
    await processes.stop('nova-compute-lxd');
    await processes.stop('lighterd');
    await startEngine(paths, processes);
    startCompute(paths, processes);

    const log = await consoleLog(cloud, id, 10_000);

    expect(log).toContain('lightervisor-test: up as');
    expect(log).toContain('answer-42');
    expect(log).toContain('lightervisor-test: power off');
  });

  it('goes on when the server starts again', async () => {
    await cloud.action(id, { 'os-start': null });
    await waitForStatus(cloud, id, 'ACTIVE');
    await sleep(1500);

    const log = await consoleLog(cloud, id, 10_000);

    expect(log.split('lightervisor-test: up as')).toHaveLength(3);
    expect(log).toContain('answer-42');
  });
});

it('leaves nothing behind', async () => {
  await deleteServer(id);

  await expectNothingLeft(before, 60_000, cloud, paths);
});
