// Files of containers, by the stock client and by the raw API; and what a hostile container may try.
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';
import { StockClient } from './stock-client.ts';

const LIMIT_MS = 60_000;
const sha256 = (data: Uint8Array) => createHash('sha256').update(data).digest('hex');

describeWith({ root: true, commands: ['lxc', 'lxc-start', 'busybox'] }, 'files of containers', () => {
  let daemon: TestDaemon;
  let client: StockClient;

  beforeAll(async () => {
    daemon = await TestDaemon.start();
    client = await StockClient.for(daemon);
    await daemon.addImage();
    await daemon.launch('f1');
    await daemon.launch('f2', { start: false });
    await daemon.ready('f1');
  }, LIMIT_MS);
  afterAll(() => daemon[Symbol.asyncDispose](), LIMIT_MS);

  const url = (path: string, name = 'f1') => `/1.0/instances/${name}/files?path=${encodeURIComponent(path)}`;
  const get = (path: string, headers: Record<string, string> = {}) => daemon.call('GET', url(path), undefined, headers);
  const post = (path: string, content: string, headers: Record<string, string> = {}) =>
    daemon.call('POST', url(path), Buffer.from(content), headers);
  const sh = (script: string) => client.run('exec', 'f1', '--', 'sh', '-c', script);

  it.each(['f1', 'f2'])(
    'moves 20 MB in and out of %s',
    async (name) => {
      const data = randomBytes(20 << 20);
      await writeFile(join(client.work, 'big'), data);

      await client.run('file', 'push', '-p', '--mode', '0640', 'big', `${name}/made/for/it/big`);
      await client.run('file', 'pull', `${name}/made/for/it/big`, `back-${name}`);

      expect(sha256(await readFile(join(client.work, `back-${name}`)))).toBe(sha256(data));
      const head = await daemon.call('HEAD', url('/made/for/it/big', name));
      expect(head.headers).toMatchObject({ 'content-length': String(20 << 20), 'x-lxd-mode': '0640' });
    },
    LIMIT_MS,
  );

  it('moves trees', async () => {
    await mkdir(join(client.work, 'tree/sub'), { recursive: true });
    await writeFile(join(client.work, 'tree/sub/leaf'), 'green');

    await client.run('file', 'push', '-r', 'tree', 'f1/tmp');
    await client.run('file', 'pull', '-r', 'f1/tmp/tree', 'copied');

    expect(await readFile(join(client.work, 'copied/tree/sub/leaf'), 'utf8')).toBe('green');
  });

  it('keeps owners and modes as the container sees them', async () => {
    await post('/tmp/owned', 'x', { 'x-incus-uid': '1000', 'x-lxd-gid': '100', 'x-lxd-mode': '0604' });

    expect(await sh('stat -c "%u %g %a" /tmp/owned')).toBe('1000 100 604\n');
    const owner = { 'x-lxd-uid': '1000', 'x-incus-uid': '1000', 'x-incus-gid': '100', 'x-incus-type': 'file' };
    expect((await get('/tmp/owned')).headers).toMatchObject(owner);
  });

  it('appends, overwrites and gives ranges', async () => {
    await post('/tmp/text', 'a longer text');
    await post('/tmp/text', '01234');
    await post('/tmp/text', '56789', { 'x-lxd-write': 'append' });

    expect((await get('/tmp/text')).text).toBe('0123456789');
    const part = await get('/tmp/text', { range: 'bytes=2-4' });
    expect([part.status, part.text, part.headers['content-range']]).toEqual([206, '234', 'bytes 2-4/10']);
    expect((await get('/tmp/text', { range: 'bytes=10-' })).status).toBe(416);
  });

  it('makes and reads links and directories', async () => {
    await post('/tmp/link', '/etc/passwd', { 'x-lxd-type': 'symlink' });
    await post('/tmp/dir', '', { 'x-lxd-type': 'directory' });
    await post('/tmp/dir/one', '1');

    const link = await get('/tmp/link');
    expect([link.headers['x-lxd-type'], link.text]).toEqual(['symlink', '/etc/passwd']);
    expect((await get('/tmp/dir')).metadata).toEqual(['one']);
    expect((await daemon.call('DELETE', url('/tmp/dir'))).status).toBeGreaterThanOrEqual(400);
    await client.run('file', 'delete', 'f1/tmp/dir/one', 'f1/tmp/dir', 'f1/tmp/link');
    expect(await sh('ls -d /tmp/dir /tmp/link 2>/dev/null || echo none; head -c 4 /etc/passwd')).toMatch(/^none\nroot/);
  });

  it('takes and gives streams, and announces what works', async () => {
    await client.ends(['file', 'push', '-', 'f1/tmp/piped'], 'through a pipe');
    const { api_extensions: names } = (await daemon.call('GET', '/1.0')).metadata;

    expect(await client.run('file', 'pull', 'f1/tmp/piped', '-')).toBe('through a pipe');
    expect(names).toEqual(
      expect.arrayContaining(['directory_manipulation', 'file_delete', 'file_append', 'file_symlinks']),
    );
  });

  it('reads files of the kernel and writes none', async () => {
    const before = (await get('/proc/1/oom_score_adj')).text;
    await sh('ln -s /proc/1/oom_score_adj /tmp/score');
    const group = '/sys/fs/cgroup/cgroup.procs';

    for (const path of ['/proc/1/oom_score_adj', '/proc/1/root/proc/1/oom_score_adj']) {
      const { status, error } = await post(path, '-1000');
      expect([status, error]).toEqual([403, expect.stringContaining('files of the kernel are only read')]);
    }
    expect((await post('/tmp/score', '-1000')).status).toBe(403);
    expect((await post(group, '1')).status).toBeGreaterThanOrEqual(400);
    expect(before).toMatch(/^-?\d+\n$/);
    expect((await get('/proc/1/oom_score_adj')).text).toBe(before);
  });

  it('says what is missing', async () => {
    const none = await get('/no/such');
    const noPath = await daemon.call('GET', '/1.0/instances/f1/files');

    expect([none.status, none.error]).toEqual([404, 'Not Found']);
    expect((await daemon.call('DELETE', url('/no/such'))).error).toBe('Not Found');
    expect([noPath.status, noPath.error]).toEqual([400, 'Missing path argument']);
    expect((await get('/tmp/a\0b')).status).toBe(400);
    expect((await daemon.call('DELETE', url('/'))).status).toBeGreaterThanOrEqual(400);
  });

  it('never leaves the container', async () => {
    const secret = join(daemon.root, 'work/secret');
    await writeFile(secret, 'of the host');
    await sh(`ln -s ${secret} /tmp/out; ln -s / /tmp/up; ln -s ../../../../../..${daemon.root}/work /tmp/far`);

    expect((await get(`/tmp/up${secret}`)).status).toBe(404);
    expect((await get(`/../../../..${secret}`)).status).toBe(404);
    expect((await get('/tmp/far/secret')).status).toBe(404);
    expect((await get(`/proc/1/root${secret}`)).status).toBe(404);
    expect((await get(`/proc/1/cwd/..${secret}`)).status).toBe(404);
    expect((await post('/tmp/out', 'mine')).status).toBe(404);
    expect(await readFile(secret, 'utf8')).toBe('of the host');
  });

  it('finds what is inside through links of every kind', async () => {
    const passwd = await sh('cat /etc/passwd');

    expect((await get('/tmp/up/etc/passwd')).text).toBe(passwd);
    expect((await get('/proc/1/root/etc/passwd')).text).toBe(passwd);
    expect((await post('/tmp/up/etc/made', 'x')).status).toBe(200);
    expect(await sh('cat /etc/made')).toBe('x');
  });

  it(
    'stays inside while names change under it',
    async () => {
      const outside = join(daemon.root, 'work/outside');
      await mkdir(outside);
      await writeFile(join(outside, 'file'), 'of the host');
      await sh(`mkdir /tmp/a && echo inside >/tmp/a/file && ln -s ${outside} /tmp/b
      (while [ ! -e /tmp/stop ]; do mv /tmp/a /tmp/c; mv -T /tmp/b /tmp/a; mv -T /tmp/a /tmp/b; mv /tmp/c /tmp/a; done) >/dev/null 2>&1 &`);

      const statuses = new Set<number>();
      for (let round = 0; round < 150 || (statuses.size < 2 && round < 3000); round++) {
        const { status, text } = await get('/tmp/a/file');
        statuses.add(status);
        expect(text).not.toContain('of the host');
        await post('/tmp/a/file', 'inside');
        await daemon.call('DELETE', url('/tmp/a/file'));
        await post('/tmp/a/file', 'inside');
      }
      await sh('touch /tmp/stop');

      expect([...statuses]).toEqual(expect.arrayContaining([200, 404])); // either was seen there
      expect(await readFile(join(outside, 'file'), 'utf8')).toBe('of the host');
    },
    LIMIT_MS,
  );

  it(
    'opens no device of a privileged container',
    async () => {
      await daemon.launch('f3', { config: { 'security.privileged': 'true' } });
      await daemon.ready('f3');
      await client.run(
        'exec',
        'f3',
        '--',
        'sh',
        '-c',
        'mknod /tmp/device c 1 5; mkfifo /tmp/pipe; test -c /tmp/device',
      );

      for (const path of ['/tmp/device', '/tmp/pipe']) {
        expect((await daemon.call('GET', url(path, 'f3'))).status).toBe(500);
        expect((await daemon.call('HEAD', url(path, 'f3'))).status).toBe(500);
        expect((await daemon.call('POST', url(path, 'f3'), Buffer.from('x'))).status).toBe(403);
      }
    },
    LIMIT_MS,
  );

  it('ends the connection when a file becomes shorter', async () => {
    await sh('dd if=/dev/zero of=/tmp/shrinks bs=1M seek=99 count=1 2>/dev/null');
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    request({ socketPath: daemon.socketPath, path: url('/tmp/shrinks') }, (response) => {
      response.once('error', ({ message }) => resolve(message));
      response.once('end', () => reject(new Error('complete')));
      sh(': >/tmp/shrinks').then(() => response.resume(), reject);
    }).end();

    expect(await promise).toBe('aborted');
  }, 20_000);

  it('neither waits for pipes nor opens devices', async () => {
    await sh('mkfifo /tmp/pipe');

    for (const path of ['/tmp/pipe', '/dev/null']) {
      expect((await get(path)).error).not.toBe('');
      expect((await post(path, 'x')).status).toBe(403);
    }
  });
});
