// SFTP with containers: by OpenSSH's client through the stock `lxc file mount`, and by a client that asks for what it must not have.
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { attributes, bytes, packet, STATUS, TYPE, uint32 } from '#src/engine/sftp/packets.ts';
import { poll } from '#src/lib/wait.ts';
import { TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';
import { SftpClient } from './sftp-client.ts';
import { ended, StockClient } from './stock-client.ts';

const LIMIT_MS = 60_000;
const READ = 1;
const WRITE = 2;
const CREATE = 8;
const EXCLUSIVE = 32;
const PORT = 20_000 + (process.pid % 10_000);

describeWith({ root: true, commands: ['lxc', 'lxc-start', 'busybox', 'sftp'] }, 'SFTP with containers', () => {
  let daemon: TestDaemon;
  let client: StockClient;
  let outside: string;

  beforeAll(async () => {
    daemon = await TestDaemon.start();
    client = await StockClient.for(daemon);
    outside = await mkdtemp(join(tmpdir(), 'sftp-outside-'));
    await writeFile(join(outside, 'secret'), 'of the host');
    await daemon.addImage();
    await daemon.launch('sftp1');
    await daemon.ready('sftp1');
  }, LIMIT_MS);
  afterAll(async () => {
    await daemon[Symbol.asyncDispose]();
    await rm(outside, { recursive: true });
  }, LIMIT_MS);

  const connect = (name = 'sftp1') => SftpClient.open(daemon.socketPath, `/1.0/instances/${name}/sftp`);
  const inside = async (command: string) => (await client.run('exec', 'sftp1', '--', 'sh', '-c', command)).trim();

  it('serves OpenSSH’s client through the stock one, running and stopped', { timeout: LIMIT_MS }, async () => {
    const bridge = client.spawn('file', 'mount', 'sftp1', '--listen', `127.0.0.1:${PORT}`, '--no-auth');
    let said = '';
    bridge.stdout?.on('data', (chunk: Buffer) => (said += chunk.toString()));
    bridge.stderr?.on('data', (chunk: Buffer) => (said += chunk.toString()));
    await poll(() => (said.includes('listening') ? true : undefined), 50, AbortSignal.timeout(20_000));
    const data = Buffer.alloc(3_000_000, 'abcdefghij');
    await writeFile(join(client.work, 'up'), data);
    const batch = async (...lines: readonly string[]) => {
      const options = ['StrictHostKeyChecking=no', 'UserKnownHostsFile=/dev/null', 'LogLevel=ERROR'];
      const flags = options.flatMap((option) => ['-o', option]);
      const child = client.command('sftp', '-b', '-', ...flags, '-P', String(PORT), 'root@127.0.0.1');
      const { code, stdout, stderr } = await ended(child, `${lines.join('\n')}\n`);
      expect([code, stderr.includes('rror')]).toEqual([0, false]);
      return stdout.toString();
    };

    const listing = await batch(
      'mkdir /root/d',
      'put up /root/d/file',
      'chmod 600 /root/d/file',
      'chown 1000 /root/d/file',
      'rename /root/d/file /root/d/moved',
      'ln -s moved /root/d/link',
      'ls -ln /root/d',
      'get /root/d/link down',
      'rm /root/d/link',
    );
    expect(listing).toMatch(/-rw-------\s+\S+\s+1000\s+0\s+3000000 .*moved/);
    expect(Buffer.compare(await readFile(join(client.work, 'down')), data)).toBe(0);
    expect(await inside('stat -c "%u %g %a %s" /root/d/moved; ls /root/d')).toBe('1000 0 600 3000000\nmoved');

    await client.run('stop', '-f', 'sftp1');
    const stopped = await batch('ls -ln /root/d', 'rm /root/d/moved', 'rmdir /root/d', 'get /etc/hostname down');
    expect(stopped).toContain('moved');
    expect(await readFile(join(client.work, 'down'), 'utf8')).toBe('sftp1\n');
    await client.run('start', 'sftp1');
    await daemon.ready('sftp1', 2);
    expect(await inside('ls -d /root/d || echo none')).toBe('none');
    bridge.kill('SIGKILL');
  });

  it('has version 3 to the letter', async () => {
    const sftp = await connect();

    const handle = await sftp.open('/root/new', READ | WRITE | CREATE | EXCLUSIVE, attributes({ mode: 0o640 }));
    const at = (offset: number) => Buffer.concat([uint32(0), uint32(offset)]);
    expect(await sftp.status(TYPE.write, handle, at(4), bytes('hello'))).toBe(STATUS.ok);
    const { reader } = await sftp.ask(TYPE.read, handle, at(0), uint32(100));
    expect(reader.text()).toBe('\0\0\0\0hello');
    expect(await sftp.status(TYPE.read, handle, at(9), uint32(100))).toBe(STATUS.endOfFile);
    expect(await sftp.status(TYPE.fsetstat, handle, attributes({ size: 6, times: { accessed: 1, modified: 2 } }))).toBe(
      0,
    );
    const found = (await sftp.ask(TYPE.fstat, handle)).reader.attributes();
    expect(found).toEqual({ size: 6, owner: { uid: 0, gid: 0 }, mode: 0o100640, times: { accessed: 1, modified: 2 } });
    expect(await sftp.status(TYPE.extended, bytes('fsync@openssh.com'), handle)).toBe(STATUS.ok);
    expect(await sftp.status(TYPE.close, handle)).toBe(STATUS.ok);
    expect(await sftp.status(TYPE.close, handle)).toBe(STATUS.failure);
    await expect(sftp.open('/root/new', WRITE | CREATE | EXCLUSIVE)).rejects.toThrow('file exists');

    expect(await sftp.status(TYPE.rename, bytes('/root/new'), bytes('/etc/hosts'))).toBe(STATUS.failure);
    expect(
      await sftp.status(TYPE.extended, bytes('posix-rename@openssh.com'), bytes('/root/new'), bytes('/tmp/n')),
    ).toBe(0);
    expect(await sftp.status(TYPE.lstat, bytes('/root/new'))).toBe(STATUS.noSuchFile);
    expect(await sftp.status(TYPE.rmdir, bytes('/etc'))).toBe(STATUS.failure);
    expect(await sftp.status(TYPE.extended, bytes('no-such@openssh.com'))).toBe(STATUS.unsupported);
    expect(await sftp.status(99)).toBe(STATUS.unsupported);
    const space = await sftp.ask(TYPE.extended, bytes('statvfs@openssh.com'), bytes('/root'));
    expect(space.type).toBe(TYPE.extendedReply);
    expect(Array.from({ length: 11 }, () => space.reader.uint64()).slice(-1)).toEqual([255]);
    const real = (await sftp.ask(TYPE.realpath, bytes('../etc/./x'))).reader;
    expect([real.uint32(), real.text()]).toEqual([1, '/etc/x']);
    sftp.connection.destroy();
  });

  it('opens directories for reading, and says what they are', async () => {
    const sftp = await connect();

    const handle = await sftp.open('/etc', READ);

    expect((await sftp.ask(TYPE.fstat, handle)).reader.attributes()).toMatchObject({ mode: 0o40755 });
    expect(await sftp.status(TYPE.read, handle, uint32(0), uint32(0), uint32(1))).toBe(STATUS.failure);
    expect(await sftp.status(TYPE.close, handle)).toBe(STATUS.ok);
    await expect(sftp.open('/etc', WRITE)).rejects.toThrow('is a directory');
    sftp.connection.destroy();
  });

  it('never leaves the container', async () => {
    await inside(
      `ln -sfn ${outside} /root/abs; ln -sfn ../../../../../..${outside} /root/rel; ln -sfn /proc/1/root/proc/self /root/magic`,
    );
    const sftp = await connect();

    for (const path of [`/root/abs/secret`, `/root/rel/secret`, `../../../../../../..${outside}/secret`]) {
      await expect(sftp.open(path, READ)).rejects.toThrow(`${STATUS.noSuchFile} `);
      await expect(sftp.open(path, WRITE | CREATE)).rejects.toThrow(`${STATUS.noSuchFile} `);
    }
    expect(await sftp.status(TYPE.setstat, bytes('/root/abs'), attributes({ mode: 0o777 }))).toBe(STATUS.noSuchFile);
    await expect(sftp.open('/root/magic/root/etc/shadow', READ)).rejects.toThrow();
    await expect(sftp.open('/proc/sysrq-trigger', WRITE)).rejects.toThrow();
    expect(await sftp.status(TYPE.setstat, bytes('/root'), attributes({ owner: { uid: 4e9, gid: 0 } }))).toBe(
      STATUS.failure,
    );
    expect(await readFile(join(outside, 'secret'), 'utf8')).toBe('of the host');
    sftp.connection.destroy();
  });

  it('cuts off who does not speak it, and answers others meanwhile', async () => {
    const other = await connect();
    for (const nonsense of [uint32(0xffffffff), uint32(0), packet(TYPE.read, uint32(1))]) {
      const sftp = await connect();
      sftp.connection.write(nonsense);
      if (nonsense.length === 4) await expect(sftp.next()).rejects.toThrow();
      else expect((await sftp.next())[0]).toBe(TYPE.status); // a short request is only that
      sftp.connection.destroy();
    }
    expect((await other.ask(TYPE.stat, bytes('/etc'))).type).toBe(TYPE.attrs);
    other.connection.destroy();
    await expect(connect('none')).rejects.toThrow('404');
    const plain = await daemon.call('GET', '/1.0/instances/sftp1/sftp');
    expect([plain.status, plain.error]).toEqual([400, 'Missing or invalid upgrade header']);
  });

  it('opens no more files than a thousand', async () => {
    const sftp = await connect();
    for (let count = 0; count < 1000; count++) await sftp.open('/etc/passwd', READ);

    await expect(sftp.open('/etc/passwd', READ)).rejects.toThrow('Too many open files');
    sftp.connection.destroy();
  });

  it('ends with the life of the container, and before a stopped one starts or goes', async () => {
    const running = await connect();
    await running.open('/etc/passwd', READ);
    const cut = once(running.connection, 'close');
    running.connection.resume();
    await client.run('stop', '-f', 'sftp1');
    await cut;

    const stopped = await connect();
    await stopped.open('/etc/passwd', READ);
    const cutAgain = once(stopped.connection, 'close');
    stopped.connection.resume();
    await client.run('start', 'sftp1');
    await cutAgain;

    await client.run('stop', '-f', 'sftp1');
    const last = await connect();
    await last.open('/etc/passwd', READ);
    last.connection.resume();
    await client.run('delete', 'sftp1');
    expect((await daemon.call('GET', '/1.0/instances/sftp1')).status).toBe(404);
    const left = (await daemon.mounts()).filter((mount) => mount.includes('sftp1'));
    expect(left).toEqual([]);
  });
});
