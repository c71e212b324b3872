// Commands in containers, by the stock client and by the raw API.
import { createHash, randomBytes } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { WebSocket } from 'ws';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';
import { ended, StockClient } from './stock-client.ts';

const LIMIT_MS = 60_000;
/** Each test has its own; a process of another run never has it. */
const mark = () => `86${randomBytes(2).readUInt16LE(0)}`;

describeWith({ root: true, commands: ['lxc', 'lxc-start', 'busybox', 'script'] }, 'commands in containers', () => {
  let daemon: TestDaemon;
  let client: StockClient;

  beforeAll(async () => {
    daemon = await TestDaemon.start();
    client = await StockClient.for(daemon);
    await daemon.addImage();
    await daemon.launch('x1', { config: { 'environment.FROM_CONFIG': 'yes', 'environment.BOTH': 'config' } });
    await daemon.ready('x1');
  }, LIMIT_MS);
  afterAll(() => daemon[Symbol.asyncDispose](), LIMIT_MS);

  const exec = (...args: readonly string[]) => client.ends(['exec', 'x1', ...args]);

  /** Pids of `sleep MARK` on this host. */
  async function sleepers(seconds: string): Promise<readonly string[]> {
    const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
    const lines = await Promise.all(
      pids.map(async (pid) => [pid, await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')] as const),
    );
    return lines.filter(([, line]) => line === `sleep\0${seconds}\0`).map(([pid]) => pid);
  }

  const running = (seconds: string) =>
    poll(async () => ((await sleepers(seconds)).length > 0 ? true : undefined), 50, AbortSignal.timeout(20_000));
  const gone = (seconds: string) =>
    poll(async () => ((await sleepers(seconds)).length === 0 ? true : undefined), 50, AbortSignal.timeout(20_000));

  it('keeps the streams apart and tells exit codes as shells do', async () => {
    const both = await exec('--', 'sh', '-c', 'echo out; echo err >&2; exit 7');

    expect([both.code, both.stdout.toString(), both.stderr]).toEqual([7, 'out\n', 'err\n']);
    expect((await exec('--', 'no-such-program')).code).toBe(127);
    expect((await exec('--', '/etc/passwd')).code).toBe(126);
    expect((await exec('--', 'sh', '-c', 'kill -9 $$')).code).toBe(137);
  });

  it('gives LXD’s environment, and user, group and directory as asked', async () => {
    const plain = (await exec('--env', 'BOTH=client', '--', 'sh', '-c', 'pwd; id -u; env')).stdout
      .toString()
      .split('\n');
    const other = await exec(
      '--user',
      '1000',
      '--group',
      '100',
      '--cwd',
      '/tmp',
      '--',
      'sh',
      '-c',
      'id -u; id -g; pwd',
    );

    expect(plain.slice(0, 2)).toEqual(['/root', '0']);
    expect(plain).toEqual(
      expect.arrayContaining([
        'HOME=/root',
        'USER=root',
        'LANG=C.UTF-8',
        'container=lxc',
        'FROM_CONFIG=yes',
        'BOTH=client',
        'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      ]),
    );
    expect(other.stdout.toString()).toBe('1000\n100\n/tmp\n');
  });

  it('refuses a directory that is not there, and takes one behind a link', async () => {
    await exec('--', 'sh', '-c', 'mkdir -p /run/here; ln -sfn /run/here /root/link; touch /root/file');
    const at = (cwd: string) => exec('--cwd', cwd, '--', 'pwd');

    const [absent, file, link] = [await at('/no/such'), await at('/root/file'), await at('/root/link')];

    expect([absent.code, absent.stdout.toString(), absent.stderr]).toEqual([
      1,
      '',
      expect.stringContaining('Working directory "/no/such" does not exist in the instance'),
    ]);
    expect(file.stderr).toContain('Working directory "/root/file" is not a directory in the instance');
    expect([link.code, link.stdout.toString()]).toEqual([0, '/run/here\n']);
  });

  it('runs under the restrictions of the container', async () => {
    const status = (await exec('--', 'cat', '/proc/self/status', '/proc/self/uid_map')).stdout.toString();
    const pid = (await daemon.state('x1')).pid as number;
    const init = await readFile(`/proc/${pid}/status`, 'utf8');
    const cgroup = (await exec('--', 'cat', '/proc/self/cgroup')).stdout.toString();

    for (const field of ['CapBnd', 'Seccomp']) {
      const line = new RegExp(`^${field}:.*$`, 'm');
      expect(line.exec(status)?.[0]).toBe(line.exec(init)?.[0]);
    }
    expect(status).toContain((await readFile(`/proc/${pid}/uid_map`, 'utf8')).trim());
    expect(status).toMatch(/^SigIgn:\s+0+$/m);
    for (const line of cgroup.trim().split('\n')) expect(line).not.toContain('lxc.payload');
    expect((await exec('--', 'ls', '/proc/self/fd')).stdout.toString().trim().split('\n')).toEqual([
      '0',
      '1',
      '2',
      '3',
    ]);
  });

  it('carries what is binary and large, both ways at once', async () => {
    const data = randomBytes(20_000_000);

    const { code, stdout } = await client.ends(['exec', 'x1', '--', 'cat'], data);

    expect(code).toBe(0);
    expect(createHash('sha256').update(stdout).digest('hex')).toBe(createHash('sha256').update(data).digest('hex'));
  });

  it('gives a terminal of the container’s own, of the size asked for', async () => {
    const inside = 'tty; stty size; echo x > /dev/tty; test -O $(tty) && echo mine';
    const child = client.command(
      'script',
      '-qec',
      `stty rows 31 cols 97; lxc exec x1 -t -- sh -c '${inside}'`,
      '/dev/null',
    );
    // At the end of its input script(1) would type the end-of-file character of whatever mode the terminal is in.
    const { stdout } = await ended(child, null);

    expect(stdout.toString().replaceAll('\r', '')).toMatch(/\/dev\/pts\/\d+\n31 97\nx\nmine\n/);
  });

  it('does not wait for a program in the background that has the output open', async () => {
    const seconds = mark();

    const { code, stdout } = await exec('--', 'sh', '-c', `sleep ${seconds} & echo started`);

    expect([code, stdout.toString()]).toEqual([0, 'started\n']);
    for (const pid of await sleepers(seconds)) process.kill(Number(pid), 'SIGKILL');
  });

  it.each([[[]], [['-t']]])('ends the command of a client that vanishes %j', async (flags) => {
    const seconds = mark();
    const child = client.spawn('exec', 'x1', ...flags, '--', 'sleep', seconds);
    await running(seconds);

    child.kill('SIGKILL');

    await gone(seconds);
  });

  it('forwards signals', async () => {
    const seconds = mark();
    const child = client.spawn('exec', 'x1', '--', 'sleep', seconds);
    const end = ended(child);
    await running(seconds);

    child.kill('SIGTERM');

    expect((await end).code).toBe(143);
    await gone(seconds);
  });

  it('records output without websockets', async () => {
    const body = { command: ['sh', '-c', 'echo out; echo err >&2; exit 3'], 'record-output': true };

    const { metadata } = await daemon.operate('POST', '/1.0/instances/x1/exec', body);

    const { output } = metadata.metadata as { output: Record<string, string> };
    expect(metadata.metadata.return).toBe(3);
    expect((await daemon.call('GET', output['1'] ?? '')).text).toBe('out\n');
    expect((await daemon.call('GET', output['2'] ?? '')).text).toBe('err\n');
    expect((await daemon.call('DELETE', output['1'] ?? '')).status).toBe(200);
    await daemon.seen('instance-exec');
  });

  it('serves clients without a control connection, and gives a secret’s connection once', async () => {
    const body = { command: ['cat'], 'wait-for-websocket': true };
    const started = await daemon.call('POST', '/1.0/instances/x1/exec', body);
    const fds = started.metadata.metadata.fds as Record<string, string>;
    const connect = (name: string) =>
      new WebSocket(`ws+unix://${daemon.socketPath}:${started.operation}/websocket?secret=${fds[name]}`);
    const [input, output, errors] = ['0', '1', '2'].map(connect) as [WebSocket, WebSocket, WebSocket];
    const messages: [string, boolean][] = [];
    output.on('message', (data: Buffer, isBinary) => messages.push([data.toString(), isBinary]));
    const closed = new Promise((resolve) => output.once('close', resolve));
    await Promise.all([input, output, errors].map((socket) => new Promise((resolve) => socket.once('open', resolve))));

    const again = connect('0');
    const refused = await new Promise<Error>((resolve) => again.once('error', resolve));
    input.send(Buffer.from('hello'));
    input.send('');
    await closed;

    expect(refused.message).toContain('403');
    expect(messages).toEqual([
      ['hello', true],
      ['', false],
    ]);
    const { metadata } = await daemon.call('GET', `${started.operation}/wait`);
    expect([metadata.status_code, metadata.metadata.return]).toEqual([200, 0]);
  });

  it('does not wait for connections for ever', async () => {
    const body = { command: ['true'], 'wait-for-websocket': true };

    await expect(daemon.operate('POST', '/1.0/instances/x1/exec', body)).rejects.toThrow(
      'Timed out waiting for websockets to connect',
    );
  });

  it('kills the command of a cancelled operation', async () => {
    const seconds = mark();
    const child = client.spawn('exec', 'x1', '--', 'sleep', seconds);
    const end = ended(child);
    await running(seconds);
    const { metadata } = await daemon.call('GET', '/1.0/operations?recursion=1');
    const [operation] = (metadata.running as { id: string; metadata: { command?: string[] } }[]).filter((one) =>
      one.metadata?.command?.includes(seconds),
    );

    await daemon.call('DELETE', `/1.0/operations/${operation?.id}`);

    await gone(seconds);
    expect((await end).code).not.toBe(0);
  });

  it('says why a frozen or stopped instance runs nothing', async () => {
    await daemon.launch('x2');
    await client.run('pause', 'x2');
    const frozen = await client.ends(['exec', 'x2', '--', 'true']);
    await client.run('stop', '-f', 'x2');
    const stopped = await client.ends(['exec', 'x2', '--', 'true']);

    expect(frozen.stderr).toContain('Instance is frozen');
    expect(stopped.stderr).toContain('Instance is not running');
  });

  it('ends commands with the container', async () => {
    await daemon.operate('PUT', '/1.0/instances/x2/state', { action: 'start' });
    const seconds = mark();
    const end = client.ends(['exec', 'x2', '--', 'sleep', seconds]);
    await running(seconds);

    await client.run('stop', '-f', 'x2');

    expect((await end).code).toBe(137);
  });

  it('loses no end of many commands at once', { timeout: LIMIT_MS }, async () => {
    const count = Number(process.env['EXEC_SOAK'] ?? 100);
    let next = 0;
    const worker = async () => {
      for (; next < count; ) {
        const word = `n${next++}`;
        const { code, stdout } = await exec('--', 'sh', '-c', `echo ${word}`);
        expect([code, stdout.toString()]).toEqual([0, `${word}\n`]);
      }
    };

    await Promise.all(Array.from({ length: 25 }, worker));

    const { metadata } = await daemon.call('GET', '/1.0/operations');
    expect(metadata.running ?? []).toEqual([]);
  });

  it('leaves nothing running when the daemon is killed', async () => {
    const seconds = mark();
    const end = client.ends(['exec', 'x1', '--', 'sleep', seconds]);
    await running(seconds);

    await daemon.kill();

    await gone(seconds);
    expect((await end).code).not.toBe(0);
    await daemon.boot();
    expect((await exec('--', 'echo', 'again')).stdout.toString()).toBe('again\n');
  });
});
