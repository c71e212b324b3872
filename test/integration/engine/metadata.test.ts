// The metadata and templates of instances, with the stock client and by the raw API.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';
import { ended, StockClient } from './stock-client.ts';

const LIMIT_MS = 60_000;

describeWith({ root: true, commands: ['lxc', 'lxc-start', 'busybox'] }, 'metadata and templates of instances', () => {
  let daemon: TestDaemon;
  let client: StockClient;
  const URL = '/1.0/instances/meta1/metadata';

  beforeAll(async () => {
    daemon = await TestDaemon.start();
    client = await StockClient.for(daemon);
    await daemon.addImage();
    await client.run('init', 'bb', 'meta1', '-c', 'user.greeting=hello');
  }, LIMIT_MS);
  afterAll(() => daemon[Symbol.asyncDispose](), LIMIT_MS);

  const file = async (name: string, path: string) =>
    (await daemon.call('GET', `/1.0/instances/${name}/files?path=${path}`)).text;
  const lxc = async (input: string, ...args: readonly string[]) => {
    const { code, stderr } = await ended(client.spawn(...args), input);
    expect([code, stderr]).toEqual([0, '']);
  };

  it('shows and edits the metadata, but not over somebody else’s change', async () => {
    const shown = await client.run('config', 'metadata', 'show', 'meta1');
    expect(shown).toContain('os: busybox');
    const { metadata, headers } = await daemon.call('GET', URL);

    await lxc(shown.replace('os: busybox', 'os: mine'), 'config', 'metadata', 'edit', 'meta1');

    expect((await daemon.call('GET', URL)).metadata).toEqual({
      ...metadata,
      properties: { ...metadata.properties, os: 'mine' },
    });
    const stale = await daemon.call('PUT', URL, metadata, { 'if-match': String(headers['etag']) });
    expect([stale.status, stale.error]).toEqual([412, expect.stringContaining("ETag doesn't match")]);
    await daemon.seen('instance-metadata-updated');
  });

  it('keeps templates as files of their own', async () => {
    await lxc('', 'config', 'template', 'create', 'meta1', 'greeting.tpl');
    await lxc(
      '{{ config_get("user.greeting", "") }} from {{ trigger }}\n',
      'config',
      'template',
      'edit',
      'meta1',
      'greeting.tpl',
    );

    expect(await client.run('config', 'template', 'list', 'meta1', '--format', 'csv')).toBe(
      'greeting.tpl\nhostname.tpl\n',
    );
    expect(await client.run('config', 'template', 'show', 'meta1', 'hostname.tpl')).toBe('{{ container.name }}\n');
    expect(await client.run('config', 'template', 'show', 'meta1', 'greeting.tpl')).toContain('from {{ trigger }}');
    await daemon.seen('instance-metadata-template-created');
  });

  it('applies them when they say so: at the creation, a start, a copy and after a new name', {
    timeout: LIMIT_MS,
  }, async () => {
    const patch = {
      templates: {
        '/root/all': { when: ['create', 'copy', 'rename', 'start'], template: 'greeting.tpl' },
        '/root/renamed': { when: ['rename'], template: 'greeting.tpl', create_only: true },
        '/root/copied': { when: ['copy'], template: 'greeting.tpl' },
        '/root/created': { when: ['create'], template: 'greeting.tpl' },
      },
    };
    expect((await daemon.call('PATCH', URL, patch)).status).toBe(200);
    expect(Object.keys((await daemon.call('GET', URL)).metadata.templates)).toContain('/etc/hostname');

    await client.run('start', 'meta1');
    expect(await file('meta1', '/root/all')).toBe('hello from start\n');
    expect(await file('meta1', '/root/created')).toBe('hello from create\n');
    expect((await daemon.call('GET', '/1.0/instances/meta1/files?path=/root/copied')).status).toBe(404);

    await client.run('stop', '-f', 'meta1');
    await client.run('copy', 'meta1', 'meta2');
    await client.run('start', 'meta2');
    expect(await file('meta2', '/root/copied')).toBe('hello from copy\n');
    expect(await file('meta2', '/etc/hostname')).toBe('meta2\n');

    await client.run('stop', '-f', 'meta2');
    await client.run('rename', 'meta2', 'meta3');
    await client.run('start', 'meta3');
    expect(await file('meta3', '/root/renamed')).toBe('hello from rename\n');
    expect(await file('meta3', '/etc/hostname')).toBe('meta3\n');
    expect(await client.run('config', 'template', 'list', 'meta3', '--format', 'csv')).toContain('greeting.tpl');
  });

  it('refuses what would lead about on the host, or nowhere', async () => {
    const put = async (changes: object) => (await daemon.call('PATCH', URL, changes)).error;
    const template = (path: string) => daemon.call('GET', `${URL}/templates?path=${encodeURIComponent(path)}`);

    expect(await put({ templates: { '/x': { when: ['start'], template: '../../etc/shadow' } } })).toContain(
      'Invalid template name',
    );
    // Images have such: what nothing triggers is never made.
    expect(await put({ templates: { '/x': { when: [''], template: 'a' } } })).toBe('');
    expect(await put({ architecture: 'vax' })).toContain('Invalid architecture "vax"');
    expect(await put({ properties: { os: 1 } })).not.toBe('');
    for (const name of ['../metadata.yaml', '..', '/etc/passwd', 'a/b', '.hidden']) {
      expect((await template(name)).error).toBe('Invalid template filename');
      expect((await daemon.call('POST', `${URL}/templates?path=${encodeURIComponent(name)}`, 'x')).status).toBe(400);
      expect((await daemon.call('DELETE', `${URL}/templates?path=${encodeURIComponent(name)}`)).status).toBe(400);
    }
    expect((await template('none')).status).toBe(404);
    expect((await daemon.call('DELETE', `${URL}/templates?path=none`)).status).toBe(404);
    expect((await daemon.call('POST', `${URL}/templates`)).error).toBe('missing path argument');
  });

  it('deletes templates, and has none where no image was', async () => {
    await client.run('config', 'template', 'delete', 'meta1', 'greeting.tpl');
    expect((await daemon.call('GET', `${URL}/templates`)).metadata).toEqual(['hostname.tpl']);
    await daemon.seen('instance-metadata-template-deleted');

    await daemon.operate('POST', '/1.0/instances', { name: 'meta4', source: { type: 'none' } });
    const bare = '/1.0/instances/meta4/metadata';
    expect((await daemon.call('GET', `${bare}/templates`)).metadata).toEqual([]);
    const { metadata } = await daemon.call('GET', bare);
    expect(metadata.templates).toBeNull();
    expect((await daemon.call('PUT', bare, metadata)).status).toBe(200);
    expect((await daemon.call('GET', bare)).metadata.architecture).not.toBe('');
  });
});
