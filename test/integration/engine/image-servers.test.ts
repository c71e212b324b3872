// Images from other servers: a second engine over TLS, driven by the stock client, and a tree of simplestreams.
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { createServer as createProbe } from 'node:net';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { makeBusyboxImage } from '../images.ts';
import { run, TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';

const NEEDS = { root: true, commands: ['lxc', 'lxc-start', 'busybox', 'tar', 'xz', 'mksquashfs', 'curl'] };

async function freePort(): Promise<number> {
  const probe = createProbe().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as { port: number };
  probe.close();
  return port;
}

describeWith(NEEDS, 'images of other servers', () => {
  let here: TestDaemon;
  let there: TestDaemon;
  let work: string;
  let url: string;

  async function lxc(...args: readonly string[]): Promise<string> {
    const env = { PATH: process.env['PATH'] ?? '', HOME: work, LXD_DIR: here.root, LXD_CONF: join(work, 'conf') };
    const running = run('lxc', args, { env, cwd: work });
    running.child.stdin?.end();
    return (await running).stdout;
  }

  const fingerprints = async (remote = 'local:') =>
    (await lxc('image', 'list', remote, '-c', 'F', '--format', 'csv')).split('\n').filter((line) => line !== '');

  /** A new image under `alias` over there. */
  async function publishThere(label: string, ...options: readonly string[]): Promise<string> {
    const file = join(work, `${label}.tar.gz`);
    await makeBusyboxImage(file, { label });
    const output = await lxc('image', 'import', file, 'there:', '--alias', 'test', ...options);
    return /fingerprint: (\w+)/u.exec(output)?.[1] ?? '';
  }

  beforeAll(async () => {
    [here, there] = await Promise.all([TestDaemon.start(), TestDaemon.start()]);
    work = join(here.root, 'work');
    await mkdir(join(work, 'conf'), { recursive: true });
    for (const [daemon, name] of [
      [here, 'here'],
      [there, 'there'],
    ] as const) {
      url = `127.0.0.1:${await freePort()}`;
      await daemon.call('PATCH', '/1.0', { config: { 'core.https_address': url, 'core.trust_password': 'pw' } });
      await lxc('remote', 'add', name, url, '--accept-certificate', '--password', 'pw');
    }
    await lxc('remote', 'add', 'public', url, '--accept-certificate', '--public');
  });
  afterAll(async () => {
    await Promise.all([here[Symbol.asyncDispose](), there[Symbol.asyncDispose]()]);
  });

  describe('a second engine', () => {
    beforeEach(async () => {
      for (const fingerprint of await fingerprints()) await lxc('image', 'delete', fingerprint);
      for (const fingerprint of await fingerprints('there:')) await lxc('image', 'delete', `there:${fingerprint}`);
    });

    it('gives a public image to a launch, which keeps it, and the next launch does not ask', async () => {
      const first = await publishThere('one', '--public');
      await lxc('launch', 'public:test', 'c1');
      const { metadata: image } = await here.call('GET', `/1.0/images/${first}`);
      expect(image).toMatchObject({
        cached: true,
        auto_update: true,
        public: false,
        properties: { description: 'one' },
      });
      expect(image.update_source).toMatchObject({ alias: 'test', protocol: 'lxd', server: `https://${url}` });
      await lxc('image', 'delete', 'there:test');
      const second = await publishThere('two', '--public');

      await lxc('init', 'there:test', 'c2');

      expect(await fingerprints()).toEqual([first]);
      const refreshed = await here.operate('POST', `/1.0/images/${first}/refresh`);
      expect(refreshed.metadata.metadata).toMatchObject({ refreshed: true });
      expect(await fingerprints()).toEqual([second]);
      expect((await here.operate('POST', `/1.0/images/${second}/refresh`)).metadata.metadata).toMatchObject({
        refreshed: false,
      });
      await lxc('delete', '-f', 'c1', 'c2');
    });

    it('gives a private image by a secret, once to all who launch it at the same time', async () => {
      const fingerprint = await publishThere('private');
      await Promise.all(['c1', 'c2', 'c3'].map((name) => lxc('init', 'there:test', name)));

      expect(await fingerprints()).toEqual([fingerprint]);
      const events = here.events.filter(
        ({ action, source }) => action === 'image-created' && source.endsWith(fingerprint),
      );
      expect(events).toHaveLength(1);
      await lxc('delete', 'c1', 'c2', 'c3');
    });

    it.each(['pull', 'push', 'relay'])('copies images both ways (%s), with names and visibility', async (mode) => {
      const fingerprint = await publishThere('copied');

      await lxc('image', 'copy', 'there:test', 'here:', `--mode=${mode}`, '--copy-aliases', '--public');

      const { metadata } = await here.call('GET', `/1.0/images/${fingerprint}`);
      expect(metadata).toMatchObject({ public: true, cached: false, aliases: [{ name: 'test' }] });
      expect(metadata.properties.description).toBe('copied');
      await lxc('image', 'delete', 'there:test');
      await lxc(
        'image',
        'copy',
        `here:${fingerprint}`,
        'there:',
        `--mode=${mode}`,
        '--copy-aliases',
        '--alias',
        'back',
      );
      expect(await lxc('image', 'show', 'there:back')).toContain('public: false');
    });

    it.each(['pull', 'push', 'relay'])('copies private images out of one project into another (%s)', async (mode) => {
      const fingerprint = await publishThere('moved');
      await lxc('project', 'create', 'there:from');
      await lxc('project', 'create', 'here:to');
      await lxc('image', 'copy', 'there:test', 'there:', '--target-project', 'from');
      await lxc('image', 'delete', 'there:test');

      // The stock client takes the project of the source from its remote.
      await lxc('project', 'switch', 'there:from');
      await lxc('image', 'copy', `there:${fingerprint}`, 'here:', '--target-project', 'to', `--mode=${mode}`);
      await lxc('project', 'switch', 'there:default');

      const { metadata } = await here.call('GET', `/1.0/images/${fingerprint}?project=to`);
      expect(metadata.properties.description).toBe('moved');
      await lxc('image', 'delete', `here:${fingerprint}`, '--project', 'to');
      await lxc('image', 'delete', `there:${fingerprint}`, '--project', 'from');
      await lxc('project', 'delete', 'here:to');
      await lxc('project', 'delete', 'there:from');
    });

    it('copies split images', async () => {
      await makeBusyboxImage(join(work, 'u.tar.gz'), { label: 'split' });
      await run(
        'sh',
        [
          '-c',
          'rm -rf p; mkdir p; tar xzf u.tar.gz -C p; tar cJf m.tar.xz -C p metadata.yaml templates; mksquashfs p/rootfs r.sq -noappend -quiet -no-progress',
        ],
        { cwd: work },
      );
      await lxc('image', 'import', 'm.tar.xz', 'r.sq', 'there:', '--alias', 'test');

      for (const mode of ['pull', 'push']) {
        await lxc('image', 'copy', 'there:test', 'here:', `--mode=${mode}`, '--alias', 'split');
        await lxc('launch', 'split', 's1');
        await lxc('delete', '-f', 's1');
        await lxc('image', 'delete', 'split');
      }
    });

    it('shows strangers only what is public, and takes nothing from them', async () => {
      const hidden = await publishThere('hidden');
      const ask = async (path: string, ...options: readonly string[]) =>
        (await run('curl', ['-ks', ...options, `https://${url}${path}`])).stdout;

      expect(await ask('/1.0/images')).toContain('"metadata":[]');
      expect(await ask(`/1.0/images/${hidden}`)).toContain('"error_code":404');
      expect(await ask(`/1.0/images/${hidden}/export`)).toContain('"error_code":404');
      expect(await ask('/1.0/images/aliases/test')).toContain('"error_code":404');
      expect(await ask('/1.0/images', '-d', 'x')).toContain('"error_code":403');
      expect(await ask('/1.0/images', '-d', '{"source":{"type":"url"}}', '-H', 'X-LXD-secret: no')).toContain(
        '"error_code":403',
      );
      await lxc('image', 'show', 'there:test');
      await there.call('PATCH', `/1.0/images/${hidden}`, { public: true });
      expect(await ask('/1.0/images')).toContain(hidden);
    });

    it('says what was wrong when a copy fails, and leaves nothing', async () => {
      const before = await readdir(join(here.root, 'images'));
      const copy = (source: object) =>
        here.operate('POST', '/1.0/images', { source: { type: 'image', mode: 'pull', ...source } });
      const { metadata: server } = await there.call('GET', '/1.0');
      const certificate = server.environment.certificate as string;

      await expect(copy({ server: `https://${url}`, certificate, alias: 'nope' })).rejects.toThrow('Image not found');
      await expect(copy({ server: `https://${url}`, alias: 'nope' })).rejects.toThrow('Unable to connect to');
      await expect(copy({ server: `https://127.0.0.1:1`, alias: 'nope' })).rejects.toThrow('ECONNREFUSED');
      await expect(copy({ server: `https://${url}`, protocol: 'smtp', alias: 'x' })).rejects.toThrow(
        'Unsupported protocol',
      );
      await expect(copy({ server: 'file:///etc/passwd', alias: 'x' })).rejects.toThrow('Invalid image server URL');
      expect(await readdir(join(here.root, 'images'))).toEqual(before);
    });

    it('forgets what was cached and not used for long', async () => {
      const fingerprint = await publishThere('old', '--public');
      await lxc('init', 'public:test', 'c1');
      {
        using database = new DatabaseSync(join(here.root, 'database/lighter.db'));
        const sql = "UPDATE images SET last_used_at = '2020-01-01T00:00:00Z' WHERE fingerprint = ?";
        expect(database.prepare(sql).run(fingerprint).changes).toBe(1);
      }

      await lxc('config', 'set', 'images.remote_cache_expiry', '1');

      await expect.poll(() => fingerprints(), { timeout: 10_000 }).toEqual([]);
      await lxc('config', 'unset', 'images.remote_cache_expiry');
      await lxc('delete', 'c1');
    });
  });

  describe('simplestreams', () => {
    let server: Server;
    let origin: string;
    const files = new Map<string, Buffer>();
    const asked: string[] = [];
    let fault: 'hash' | 'broken' | undefined;

    beforeAll(async () => {
      server = createServer((request, response) => {
        const path = request.url ?? '';
        asked.push(path);
        const content = files.get(path);
        if (!content) return void response.writeHead(404).end();
        const start = Number(/bytes=(\d+)-/u.exec(request.headers.range ?? '')?.[1] ?? 0);
        const headers = { 'content-length': content.length - start };
        response.writeHead(start > 0 ? 206 : 200, headers);
        if (fault === 'broken' && start === 0 && path.endsWith('squashfs')) {
          response.write(content.subarray(0, 1000), () => response.destroy());
          fault = undefined;
          return;
        }
        response.end(fault === 'hash' ? Buffer.alloc(content.length - start) : content.subarray(start));
      }).listen(0, '127.0.0.1');
      await once(server, 'listening');
      origin = `http://127.0.0.1:${(server.address() as { port: number }).port}`;
      await makeBusyboxImage(join(work, 'ss.tar.gz'), { label: 'streams' });
      await run(
        'sh',
        [
          '-c',
          'rm -rf q; mkdir q; tar xzf ss.tar.gz -C q; tar cJf lxd.tar.xz -C q metadata.yaml templates; mksquashfs q/rootfs root.squashfs -noappend -quiet -no-progress; tar cJf root.tar.xz -C q/rootfs .',
        ],
        { cwd: work },
      );
      const read = (name: string) => readFile(join(work, name));
      const [meta, squashfs, tarball] = await Promise.all(['lxd.tar.xz', 'root.squashfs', 'root.tar.xz'].map(read));
      if (!meta || !squashfs || !tarball) throw new Error('not made');
      const sha256 = (...parts: readonly Buffer[]) =>
        createHash('sha256')
          .update(Buffer.concat([...parts]))
          .digest('hex');
      const item = (ftype: string, content: Buffer) => ({
        ftype,
        path: `images/${ftype}`,
        size: content.length,
        sha256: sha256(content),
      });
      for (const [name, content] of [
        ['lxd.tar.xz', meta],
        ['squashfs', squashfs],
        ['root.tar.xz', tarball],
      ] as const) {
        files.set(`/images/${name}`, content);
      }
      const arch = process.arch === 'arm64' ? 'arm64' : 'amd64';
      const items = {
        'lxd.tar.xz': {
          ...item('lxd.tar.xz', meta),
          combined_squashfs_sha256: sha256(meta, squashfs),
          combined_rootxz_sha256: sha256(meta, tarball),
        },
        squashfs: item('squashfs', squashfs),
        'root.tar.xz': item('root.tar.xz', tarball),
      };
      const product = {
        aliases: 'busy,busy/1',
        arch,
        os: 'Busybox',
        release: 'one',
        release_title: 'One',
        versions: { '20240101_0742': { items } },
      };
      const index = { images: { datatype: 'image-downloads', path: 'streams/v1/images.json', products: ['b'] } };
      files.set('/streams/v1/index.json', Buffer.from(JSON.stringify({ format: 'index:1.0', index })));
      files.set(
        '/streams/v1/images.json',
        Buffer.from(JSON.stringify({ format: 'products:1.0', products: { b: product } })),
      );
    });
    afterAll(() => server.close());

    const source = (more: object = {}) => ({
      type: 'image',
      mode: 'pull',
      protocol: 'simplestreams',
      server: origin,
      alias: 'busy/1',
      ...more,
    });

    it('is launched from, squashfs first, with a connection that breaks', async () => {
      fault = 'broken';

      await here.operate('POST', '/1.0/instances', { name: 'ss', start: true, source: source() });

      const { metadata } = await here.call('GET', '/1.0/images?recursion=1&filter=properties.os+eq+Busybox');
      expect(metadata).toHaveLength(1);
      expect(metadata[0]).toMatchObject({
        cached: true,
        auto_update: true,
        properties: { type: 'squashfs', serial: '20240101_0742', description: expect.stringContaining('Busybox One') },
        update_source: { alias: 'busy/1', protocol: 'simplestreams', server: origin },
      });
      expect(asked.filter((path) => path === '/images/squashfs')).toHaveLength(2);
      expect(asked).not.toContain('/images/root.tar.xz');
      await here.operate('PUT', '/1.0/instances/ss/state', { action: 'stop', force: true });
      await here.operate('DELETE', '/1.0/instances/ss');
      await here.operate('DELETE', `/1.0/images/${metadata[0].fingerprint}`);
    });

    it('is copied from through the documents that were kept, with names', async () => {
      asked.length = 0;
      const body = { source: source({ alias: 'busy' }), auto_update: true, public: true, aliases: [{ name: 'mine' }] };

      const { metadata } = await here.operate('POST', '/1.0/images', body);

      const { fingerprint } = metadata.metadata;
      expect((await here.call('GET', '/1.0/images/aliases/mine')).metadata.target).toBe(fingerprint);
      expect((await here.call('GET', `/1.0/images/${fingerprint}`)).metadata).toMatchObject({
        public: true,
        auto_update: true,
        cached: false,
      });
      expect(asked.filter((path) => path.endsWith('.json'))).toEqual([]);
      await here.operate('DELETE', `/1.0/images/${fingerprint}`);
    });

    it('is not believed when a file has another hash', async () => {
      const before = await readdir(join(here.root, 'images'));
      fault = 'hash';

      await expect(here.operate('POST', '/1.0/images', { source: source() })).rejects.toThrow('Hash mismatch');

      fault = undefined;
      expect(await readdir(join(here.root, 'images'))).toEqual(before);
      await expect(here.operate('POST', '/1.0/images', { source: source({ alias: 'none' }) })).rejects.toThrow(
        "The requested image couldn't be found",
      );
    });
  });
});
