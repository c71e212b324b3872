// Proxy devices of real containers: every kind of socket on both ends, and what happens to them when processes die.
import { type ChildProcess, spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { chmod, chown, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { natRemoval, natRules } from '#drivers/devices/proxy/nat.ts';
import { parseAddress } from '#drivers/devices/proxy/options.ts';
import { receiveWithFds, sendWithFds } from '#src/host/forwarding/calls.ts';
import type { PortAddress } from '#src/host/forwarding/messages.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { peerCredentials } from '#src/host/peer-credentials.ts';
import { poll, sleep } from '#src/lib/wait.ts';
import { describeWith } from '../support.ts';
import { deviceBench, type DeviceBench } from './devices-support.ts';

const ECHO = `
const [kind, where, port] = process.argv.slice(1);
if (kind === 'udp') {
  const socket = require('node:dgram').createSocket(where.includes(':') ? 'udp6' : 'udp4');
  socket.on('message', (data, { address, port }) => socket.send('echo ' + data, port, address));
  socket.bind(Number(port), where, () => console.log('up'));
} else {
  const server = require('node:net').createServer({ allowHalfOpen: true }, (socket) => {
    if (port === '99') return socket.pipe(socket);
    let text = '';
    socket.on('error', () => undefined);
    socket.on('data', (data) => { text += data; if (text.endsWith('\\n')) { socket.write('echo ' + text); text = ''; } });
    socket.on('end', () => socket.end(text));
  });
  server.listen(kind === 'tcp' ? { host: where, port: Number(port) } : { path: where }, () => console.log('up'));
}
`;

describeWith(
  { root: true, commands: ['lxc', 'lxc-start', 'busybox', 'nsenter', 'setpriv', 'nft'] },
  'proxy devices',
  () => {
    let bench: DeviceBench;
    let shared: string;
    const processes: ChildProcess[] = [];
    const servers: Server[] = [];

    beforeAll(async () => {
      bench = await deviceBench();
      await bench.launch('prx-c1');
      shared = await mkdtemp(join(tmpdir(), 'prx-'));
    });
    afterEach(async () => {
      for (const one of processes.splice(0)) one.kill('SIGKILL');
      for (const one of servers.splice(0)) one.close();
      const names = (await bench.lxc('config', 'device', 'list', 'prx-c1')).split('\n').filter(Boolean);
      for (const name of names.filter((one) => one !== 'root')) await remove(name).catch(() => undefined);
    });
    afterAll(async () => {
      await bench[Symbol.asyncDispose]();
      await rm(shared, { recursive: true, force: true });
    });

    const add = (name: string, ...options: string[]) =>
      bench.lxc('config', 'device', 'add', 'prx-c1', name, 'proxy', ...options);
    const remove = (name: string) => bench.lxc('config', 'device', 'remove', 'prx-c1', name);

    /** An echo server in the container's network, or on the host. */
    async function echo(where: 'inside' | 'outside', ...args: readonly string[]): Promise<ChildProcess> {
      const enter = where === 'inside' ? ['nsenter', '-t', String(await bench.pid('prx-c1')), '-n', '--'] : [];
      const [program = '', ...rest] = [...enter, process.execPath, '-e', ECHO, ...args];
      const child = spawn(program, rest, { stdio: ['ignore', 'pipe', 'inherit'] });
      processes.push(child);
      await once(child.stdout as NodeJS.ReadableStream, 'data');
      return child;
    }

    /** What comes back for a line, through a new connection that then ends. */
    async function ask(target: { port: number; host?: string } | { path: string }, line = 'hi\n'): Promise<string> {
      const socket = 'path' in target ? connect(target) : connect({ host: '127.0.0.1', ...target });
      let text = '';
      socket.on('data', (data) => (text += String(data)));
      socket.end(line);
      await once(socket, 'close');
      return text;
    }

    /** The same by a command in the container's network. */
    async function askInside(...args: readonly string[]): Promise<string> {
      const script = `
      const [kind, where, port] = process.argv.slice(1);
      const socket = require('node:net').connect(kind === 'tcp' ? { host: where, port: Number(port) } : { path: where.replace('@', '\\0') });
      socket.on('data', (data) => process.stdout.write(data));
      socket.on('error', (error) => { console.log(error.code); });
      socket.end('hi\\n');`;
      const pid = String(await bench.pid('prx-c1'));
      const child = spawn('nsenter', ['-t', pid, '-n', '--', process.execPath, '-e', script, ...args]);
      let text = '';
      child.stdout.on('data', (data) => (text += String(data)));
      await once(child, 'close');
      return text;
    }

    async function forwardServers(): Promise<readonly number[]> {
      const found: number[] = [];
      for (const pid of await readdir('/proc')) {
        if (!/^\d+$/.test(pid)) continue;
        const line = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
        if (line.includes('forward-server') && line.includes(`${bench.daemon.root}/forwards`)) found.push(Number(pid));
      }
      return found;
    }

    it('tcp: several ports of the host lead into the container, each to its own or all to one', async () => {
      await echo('inside', 'tcp', '127.0.0.1', '80');
      await echo('inside', 'tcp', '127.0.0.1', '91');

      await add('web', 'listen=tcp:127.0.0.1:18080-18081', 'connect=tcp:127.0.0.1:80');
      await add('pair', 'listen=tcp:127.0.0.1:18090,18091', 'connect=tcp:127.0.0.1:90-91');

      expect(await ask({ port: 18080 })).toBe('echo hi\n');
      expect(await ask({ port: 18081 })).toBe('echo hi\n');
      expect(await ask({ port: 18091 })).toBe('echo hi\n');
      expect(await ask({ port: 18090 }).catch(() => 'reset')).toMatch(/^(reset)?$/u);
    });

    it('tcp: much data arrives whole, and a half-closed connection still answers', async () => {
      await add('web', 'listen=tcp:[::]:18082', 'connect=tcp:127.0.0.1:99');
      await echo('inside', 'tcp', '127.0.0.1', '99');
      const bytes = 32 << 20;

      const answer = await ask({ port: 18082 }, 'x'.repeat(bytes));

      expect(answer.length).toBe(bytes);
      expect(await ask({ host: '::1', port: 18082 })).toBe('hi\n');
    });

    it('connections outlive the daemon, and so does what listens', async () => {
      await echo('inside', 'tcp', '127.0.0.1', '80');
      await add('web', 'listen=tcp:127.0.0.1:18083', 'connect=tcp:127.0.0.1:80');
      const socket = connect(18083, '127.0.0.1');
      const lines: string[] = [];
      socket.on('data', (data) => lines.push(String(data)));
      socket.write('one\n');
      await poll(() => (lines.length > 0 ? true : undefined), 10, AbortSignal.timeout(5000));
      const [before] = await forwardServers();

      await bench.daemon.kill();
      socket.write('two\n');
      await poll(() => (lines.length > 1 ? true : undefined), 10, AbortSignal.timeout(5000));
      await bench.daemon.boot();
      socket.write('three\n');
      await poll(() => (lines.length > 2 ? true : undefined), 10, AbortSignal.timeout(5000));
      socket.destroy();

      expect(lines).toEqual(['echo one\n', 'echo two\n', 'echo three\n']);
      expect(await forwardServers()).toEqual([before]);
      expect(await ask({ port: 18083 })).toBe('echo hi\n');
      await remove('web');
      await expect(ask({ port: 18083 })).rejects.toThrow('ECONNREFUSED');
    });

    it('a forward server that was killed is replaced', async () => {
      await echo('inside', 'tcp', '127.0.0.1', '80');
      await add('web', 'listen=tcp:127.0.0.1:18084', 'connect=tcp:127.0.0.1:80');
      const [before = 0] = await forwardServers();

      process.kill(before, 'SIGKILL');

      const works = () =>
        ask({ port: 18084 }).then(
          (text) => text || undefined,
          () => undefined,
        );
      expect(await poll(works, 50, AbortSignal.timeout(20_000))).toBe('echo hi\n');
      expect(await forwardServers()).not.toEqual([before]);
    });

    it('an instance that reboots, stops and starts has it again', async () => {
      await add('web', 'listen=tcp:127.0.0.1:18085', 'connect=tcp:127.0.0.1:80');
      const since = bench.daemon.events.length;
      const before = await bench.pid('prx-c1');

      process.kill(before, 'SIGINT');
      await bench.daemon.seen('instance-restarted', since);
      await echo('inside', 'tcp', '127.0.0.1', '80');
      expect(await bench.pid('prx-c1')).not.toBe(before);
      expect(await ask({ port: 18085 })).toBe('echo hi\n');

      await bench.lxc('stop', '-f', 'prx-c1');
      await expect(ask({ port: 18085 })).rejects.toThrow('ECONNREFUSED');
      await bench.lxc('start', 'prx-c1');
      await echo('inside', 'tcp', '127.0.0.1', '80');
      expect(await ask({ port: 18085 })).toBe('echo hi\n');
    });

    it('a container that ends while nobody looks keeps nothing open', async () => {
      await add('web', 'listen=tcp:127.0.0.1:18086', 'connect=tcp:127.0.0.1:80');
      const pid = await bench.pid('prx-c1');
      await bench.daemon.kill();

      process.kill(pid, 'SIGKILL');

      const refused = () =>
        ask({ port: 18086 }).then(
          () => undefined,
          () => true,
        );
      await poll(refused, 20, AbortSignal.timeout(5000));
      await bench.daemon.boot();
      await poll(
        async () => ((await bench.daemon.status('prx-c1')) === 'Stopped' ? true : undefined),
        50,
        AbortSignal.timeout(10_000),
      );
      await bench.lxc('start', 'prx-c1');
      await echo('inside', 'tcp', '127.0.0.1', '80');
      expect(await ask({ port: 18086 })).toBe('echo hi\n');
    });

    it('bind=instance: what is asked in the container is answered by the host', async () => {
      await echo('outside', 'tcp', '127.0.0.1', '18087');

      await add('out', 'bind=instance', 'listen=tcp:127.0.0.1:81', 'connect=tcp:127.0.0.1:18087');
      await add('abs', 'bind=instance', 'listen=unix:@prx-abstract', 'connect=tcp:127.0.0.1:18087');

      expect(await askInside('tcp', '127.0.0.1', '81')).toBe('echo hi\n');
      expect(await askInside('unix', '@prx-abstract')).toBe('echo hi\n');
      await remove('out');
      expect(await askInside('tcp', '127.0.0.1', '81')).toBe('ECONNREFUSED\n');
    });

    it('udp: senders get their own answers, also through a stream', async () => {
      await echo('inside', 'udp', '127.0.0.1', '53');
      await echo('inside', 'tcp', '127.0.0.1', '80');
      await add('dns', 'listen=udp:127.0.0.1:18053', 'connect=udp:127.0.0.1:53');
      await add('mix', 'listen=udp:127.0.0.1:18054', 'connect=tcp:127.0.0.1:80');
      await add('mux', 'listen=tcp:127.0.0.1:18055', 'connect=udp:127.0.0.1:53');

      const send = async (text: string, port: number): Promise<string> => {
        const socket = createSocket('udp4');
        socket.send(text, port, '127.0.0.1');
        const [data] = (await once(socket, 'message', { signal: AbortSignal.timeout(5000) })) as [Buffer];
        socket.close();
        return String(data);
      };
      expect(await Promise.all(['a', 'b', 'c'].map((text) => send(text, 18053)))).toEqual([
        'echo a',
        'echo b',
        'echo c',
      ]);
      expect(await send('d\n', 18054)).toBe('echo d\n');
      const socket = connect(18055, '127.0.0.1');
      socket.write('e');
      expect(String((await once(socket, 'data'))[0])).toBe('echo e');
      socket.destroy();
    });

    it('unix: a socket of the host with an owner and a mode leads to one in the container, as a user of it', async () => {
      const path = join(shared, 'front.sock');
      const inside = `/proc/${await bench.pid('prx-c1')}/root/tmp/back.sock`;
      const seen = Promise.withResolvers<{ readonly uid: number }>();
      const server = createServer((socket: Socket) => {
        seen.resolve(peerCredentials(socket) as { uid: number });
        socket.end('from inside\n');
      });
      servers.push(server);
      await new Promise<void>((resolve) => server.listen(inside, resolve));
      await bench.inside('prx-c1', 'chmod', '0777', '/tmp');
      await chmodAny(inside);

      const owner = ['uid=1001', 'gid=1002', 'mode=0660', 'security.uid=1000', 'security.gid=1000'];
      await add('x', `listen=unix:${path}`, 'connect=unix:/tmp/back.sock', ...owner);

      const { mode, uid, gid } = await stat(path);
      expect([mode & 0o7777, uid, gid]).toEqual([0o660, 1001, 1002]);
      expect(await ask({ path }, '')).toBe('from inside\n');
      const { metadata } = await bench.daemon.call('GET', '/1.0/instances/prx-c1');
      const [{ Hostid }] = JSON.parse(metadata.config['volatile.idmap.current']) as [{ Hostid: number }];
      expect((await seen.promise).uid).toBe(Hostid + 1000);
      await remove('x');
      expect(existsSync(path)).toBe(false);
    });

    async function chmodAny(path: string): Promise<void> {
      const { chmod } = await import('node:fs/promises');
      await chmod(path, 0o777);
    }

    it('unix: a socket in the container has its ids, and file descriptors go through', async () => {
      const path = join(shared, 'outer.sock');
      const file = join(shared, 'passed');
      await writeFile(file, 'passed on\n');
      const server = createServer((socket: Socket) => {
        // oxlint-disable-next-line typescript/no-explicit-any -- node keeps it to itself
        const fd = (socket as any)._handle.fd as number;
        const { open } = process.getBuiltinModule('node:fs/promises');
        void open(file).then(async (handle) => {
          sendWithFds(fd, Buffer.from('here'), [handle.fd]);
          await handle.close();
          socket.end();
        });
      });
      servers.push(server);
      await new Promise<void>((resolve) => server.listen(path, resolve));

      await add('x', 'bind=container', 'listen=unix:/tmp/in.sock', `connect=unix:${path}`, 'uid=7', 'mode=0600');

      expect((await bench.inside('prx-c1', 'stat', '-c', '%u %g %a', '/tmp/in.sock')).trim()).toBe('7 0 600');
      const client = connect(`/proc/${await bench.pid('prx-c1')}/root/tmp/in.sock`);
      client.pause();
      await once(client, 'connect');
      // oxlint-disable-next-line typescript/no-explicit-any -- as above
      const fd = (client as any)._handle.fd as number;
      const got = await poll(() => receiveWithFds(fd, Buffer.alloc(16)), 20, AbortSignal.timeout(5000));
      expect(got.fds).toHaveLength(1);
      expect(await readFile(`/proc/self/fd/${got.fds[0]}`, 'utf8')).toBe('passed on\n');
      client.destroy();
      await remove('x');
      expect(await bench.inside('prx-c1', 'ls', '/tmp')).not.toContain('in.sock');
    });

    it('the PROXY header says who asks', async () => {
      await echo('inside', 'tcp', '127.0.0.1', '80');
      await add('web', 'listen=tcp:127.0.0.1:18088', 'connect=tcp:127.0.0.1:80', 'proxy_protocol=true');

      expect(await ask({ port: 18088 })).toMatch(
        /^echo PROXY TCP4 127\.0\.0\.1 127\.0\.0\.1 \d+ 18088\r\n(echo )?hi\n$/u,
      );
    });

    it('an address that is taken is an error, and no device', async () => {
      await echo('outside', 'tcp', '127.0.0.1', '18089');

      const taken = add('web', 'listen=tcp:127.0.0.1:18089', 'connect=tcp:127.0.0.1:80');

      await expect(taken).rejects.toThrow(
        /Failed to start device "web": Failed to listen on tcp:127\.0\.0\.1:18089: .*address already in use/u,
      );
      expect(await bench.lxc('config', 'device', 'list', 'prx-c1')).not.toContain('web');
      await expect(add('bad', 'listen=tcp:host:1', 'connect=tcp:127.0.0.1:80')).rejects.toThrow(
        'Not an IP address "host"',
      );
    });

    it('the root of the container passes its own directories, whatever their modes, and nobody else does', async () => {
      const inside = `/proc/${await bench.pid('prx-c1')}/root`;
      await bench.inside('prx-c1', 'mkdir', '-m', '0600', '/shut');
      const echoes = createServer((socket) => socket.pipe(socket));
      servers.push(echoes);
      await new Promise<void>((resolve) => echoes.listen(`${inside}/shut/s.sock`, resolve));
      await chmod(`${inside}/shut/s.sock`, 0o666);

      await add('own', 'listen=tcp:127.0.0.1:18097', 'connect=unix:/shut/s.sock');
      expect(await ask({ port: 18097 })).toBe('hi\n');
      await add('other', 'listen=tcp:127.0.0.1:18098', 'connect=unix:/shut/s.sock', 'security.uid=7', 'security.gid=7');
      expect(await ask({ port: 18098 }, '').catch(() => '')).toBe('');
      await chown(`${inside}/shut`, 0, 0); // as of a directory of the host
      expect(await ask({ port: 18097 }, '').catch(() => '')).toBe('');
    });

    it('links in the container lead nowhere else', async () => {
      const outside = join(shared, 'outside');
      await mkdir(outside);
      await echo('outside', 'unix', join(outside, 'secret.sock'));
      const root = `/proc/${await bench.pid('prx-c1')}/root`;
      await symlink(outside, `${root}/tmp/trap`);
      await symlink(join(outside, 'secret.sock'), `${root}/tmp/to-secret`);

      const made = add('trap', 'bind=instance', 'listen=unix:/tmp/trap/x.sock', 'connect=tcp:127.0.0.1:80');
      await expect(made).rejects.toThrow('Failed to listen on unix:/tmp/trap/x.sock');
      expect(await readdir(outside)).toEqual(['secret.sock']);
      await add('leak', 'listen=tcp:127.0.0.1:18099', 'connect=unix:/tmp/to-secret');
      expect(await ask({ port: 18099 }, '').catch(() => '')).toBe('');
    });

    it('nat: rules that the packet filter takes, again and again, and of which nothing is left', async () => {
      const [listen, connectTo] = [parseAddress('tcp:10.99.0.1:80-82'), parseAddress('tcp:10.98.0.5:80')];
      const host = new LinuxHost();
      const nft = (input: string) => host.run(['nft', '-f', '-'], { input });
      const table = async () => (await host.run(['nft', 'list', 'table', 'inet', 'lxd'])).stdout;

      for (let round = 0; round < 2; round++) {
        await nft(natRules('prx-c1.web', listen as PortAddress, connectTo as PortAddress));
      }
      expect(await table()).toContain('ip daddr 10.99.0.1 tcp dport 80-82 dnat ip to 10.98.0.5:80');
      for (let round = 0; round < 2; round++) await nft(natRemoval('prx-c1.web'));
      expect(await table()).not.toContain('prx-c1');
      const refused = add('web', 'listen=tcp:10.99.0.1:80', 'connect=tcp:10.98.0.5:80', 'nat=true');
      await expect(refused).rejects.toThrow('Proxy connect IP cannot be used with any of the instance NICs static IPs');
    });

    it('nat: the kernel leads connections to the static address of a nic, and stops with the instance', async () => {
      const host = new LinuxHost();
      const ip = (...words: string[]) => host.run(['ip', ...words]);
      const chains = () => host.run(['nft', 'list', 'table', 'inet', 'lxd']).then(({ stdout }) => stdout);
      await ip('link', 'add', 'prxbr0', 'type', 'bridge');
      try {
        await ip('address', 'add', '10.77.0.1/24', 'dev', 'prxbr0');
        await ip('address', 'add', '10.77.9.1/32', 'dev', 'prxbr0');
        await ip('link', 'set', 'prxbr0', 'up');
        const nic = [
          'eth0',
          'nic',
          'nictype=bridged',
          'parent=prxbr0',
          'ipv4.address=10.77.0.5',
          'security.ipv4_filtering=true',
        ];
        await bench.lxc('config', 'device', 'add', 'prx-c1', ...nic);
        await bench.inside('prx-c1', 'ip', 'addr', 'add', '10.77.0.5/24', 'dev', 'eth0');
        await bench.inside('prx-c1', 'ip', 'link', 'set', 'eth0', 'up');
        await bench.inside('prx-c1', 'ip', 'route', 'add', 'default', 'via', '10.77.0.1');
        await echo('inside', 'tcp', '10.77.0.5', '80');

        await add('web', 'listen=tcp:10.77.9.1:8080', 'connect=tcp:0.0.0.0:80', 'nat=true');

        expect(await ask({ host: '10.77.9.1', port: 8080 })).toBe('echo hi\n');
        await bench.daemon.kill();
        await host.run(['nft', 'delete', 'table', 'inet', 'lxd']);
        await bench.daemon.boot();
        const back = async () => ((await chains().catch(() => '')).includes('prert.prx-c1.web') ? true : undefined);
        await poll(back, 50, AbortSignal.timeout(10_000));
        expect(await ask({ host: '10.77.9.1', port: 8080 })).toBe('echo hi\n');
        await bench.lxc('stop', '-f', 'prx-c1');
        expect(await chains()).not.toContain('prx-c1.web');
        await remove('web');
        await bench.lxc('config', 'device', 'remove', 'prx-c1', 'eth0');
        await bench.lxc('start', 'prx-c1');
      } finally {
        await ip('link', 'delete', 'prxbr0');
      }
    });

    it('what nobody needs ends by itself', async () => {
      await echo('inside', 'tcp', '127.0.0.1', '80');
      await add('web', 'listen=tcp:127.0.0.1:18098', 'connect=tcp:127.0.0.1:80');
      expect(await forwardServers()).toHaveLength(1);
      await remove('web');
      await poll(
        async () => ((await forwardServers()).length === 0 ? true : undefined),
        500,
        AbortSignal.timeout(30_000),
      );

      await add('web', 'listen=tcp:127.0.0.1:18098', 'connect=tcp:127.0.0.1:80');
      expect(await ask({ port: 18098 })).toBe('echo hi\n');
      await sleep(10);
    });
  },
);
