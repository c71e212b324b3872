// Templates of images, and files that are written into the root of an instance.
import { lstat, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { NEVER_USED, type InstanceRecord } from '#src/engine/db/records.ts';
import { resolveInside, writeInside } from '#src/engine/instances/rootfs-files.ts';
import { renderTemplate } from '#src/engine/instances/template-engine.ts';
import { applyTemplates, type TemplateRun } from '#src/engine/instances/templates.ts';

const owner = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };

describe('the template engine', () => {
  const config: Record<string, string> = { 'user.a': '1' };
  const scope = {
    container: { name: 'c1' },
    properties: { default: '#cloud-config\n{}' },
    config_get: (key: unknown, fallback: unknown) => (config[String(key)] ?? fallback) as string,
  };
  const render = (template: string) => renderTemplate(template, scope);

  it('renders what the images of the public servers use', () => {
    expect(render('{{ container.name }}\n')).toBe('c1\n');
    expect(render('{{ config_get("user.user-data", properties.default) }}')).toBe('#cloud-config\n{}');
    expect(render('{% if config_get("user.network-config", "") == "" %}none{% else %}set{% endif %}')).toBe('none');
    expect(render('{{ config_get("cloud-init.user-data", config_get("user.a", "")) }}')).toBe('1');
    expect(render('a {# remark #}b')).toBe('a b');
  });

  it('knows conditions, loops, filters and trimming', () => {
    expect(render('{% if not x and (container.name == "c1" or false) %}yes{% endif %}')).toBe('yes');
    expect(render('{% if x %}1{% elif container.name != "c1" %}2{% else %}3{% endif %}')).toBe('3');
    expect(render('{% for k, v in container %}{{ k }}={{ v|upper }};{% endfor %}')).toBe('name=C1;');
    expect(render('a {{- "b" -}} c')).toBe('abc');
    expect(render('{{ missing|default:"d" }}')).toBe('d');
    expect(render('{% if "xyz" in "container" %}in{% endif %}')).toBe('');
  });

  it('does not run what is not chosen', () => {
    expect(render('{% if false %}{{ nothing() }}{% endif %}')).toBe('');
  });

  it.each(['{% include "x" %}', '{% if a %}', '{{ a | nope }}', '{{ a b }}', '{% endif %}', '{{ container() }}'])(
    'refuses %s instead of guessing',
    (template) => {
      expect(() => render(template)).toThrow('Failed to render template');
    },
  );

  it('cannot be led out of its scope', () => {
    expect(render('{{ container.constructor }}{{ container.__proto__ }}')).toBe('');
  });
});

describe('files in a root', () => {
  let root: string;
  let outside: string;

  beforeEach(async () => {
    const scratch = await mkdtemp(join(tmpdir(), 'rootfs-'));
    root = join(scratch, 'root');
    outside = join(scratch, 'outside');
    await mkdir(join(root, 'etc'), { recursive: true });
    await mkdir(outside);
  });

  afterEach(async () => {
    await rm(join(root, '..'), { recursive: true });
  });

  it('resolves links as the container sees them', async () => {
    await symlink('/etc', join(root, 'abs'));
    await symlink('../../../../etc', join(root, 'etc/up'));

    expect(await resolveInside(root, '/abs/hostname')).toBe(join(root, 'etc/hostname'));
    expect(await resolveInside(root, '/etc/up/../../../etc/passwd')).toBe(join(root, 'etc/passwd'));
  });

  it('writes to the inside when links point to the outside', async () => {
    await writeFile(join(outside, 'target'), 'safe');
    await symlink(join(outside, 'target'), join(root, 'etc/hostname'));

    await writeInside({ root, path: '/etc/hostname', content: 'x', owner });

    expect(await readFile(join(outside, 'target'), 'utf8')).toBe('safe');
    expect(await readFile(join(root, outside, 'target'), 'utf8')).toBe('x');
  });

  it('gives up on links in a circle, and on what is no file', async () => {
    await symlink('b', join(root, 'a'));
    await symlink('a', join(root, 'b'));
    await mkdir(join(root, 'etc/hosts'));

    await expect(writeInside({ root, path: '/a', content: 'x', owner })).rejects.toThrow('too many links');
    await expect(writeInside({ root, path: '/etc/hosts', content: 'x', owner })).rejects.toThrow('not a regular file');
  });

  it('makes parents, keeps modes, and leaves an existing file alone when told to', async () => {
    await writeInside({ root, path: '/var/lib/cloud/seed', content: 'one', owner });
    const again = await writeInside({ root, path: '/var/lib/cloud/seed', content: 'two', owner, createOnly: true });
    await writeFile(join(root, 'etc/secret'), 'x', { mode: 0o600 });
    await writeInside({ root, path: '/etc/secret', content: 'y', owner });

    expect(again).toBe(false);
    expect(await readFile(join(root, 'var/lib/cloud/seed'), 'utf8')).toBe('one');
    expect((await lstat(join(root, 'etc/secret'))).mode & 0o777).toBe(0o600);
  });

  it('names a new instance even when its image has no template for it', async () => {
    await applyTemplates(runOf(root, { triggers: ['create', 'start'], metadata: undefined }));

    expect(await readFile(join(root, 'etc/hostname'), 'utf8')).toBe('c1\n');
  });

  it('applies templates by trigger', async () => {
    await mkdir(join(root, '../templates'));
    await writeFile(
      join(root, '../templates/x.tpl'),
      '{{ trigger }} {{ instance.name }} {{ config_get("user.a", "-") }}',
    );
    const template = { when: ['start'], createOnly: false, template: 'x.tpl', properties: {} };

    await applyTemplates(runOf(root, { triggers: ['start'], metadata: { templates: { '/etc/x': template } } }));

    expect(await readFile(join(root, 'etc/x'), 'utf8')).toBe('start c1 1');
    await expect(lstat(join(root, 'etc/hostname'))).rejects.toThrow('ENOENT');
  });
});

function runOf(root: string, changes: Partial<TemplateRun>): TemplateRun {
  const record: InstanceRecord = {
    id: 1,
    project: 'default',
    name: 'c1',
    uuid: 'u',
    type: 'container',
    architecture: 'x86_64',
    ephemeral: false,
    stateful: false,
    description: '',
    config: {},
    devices: {},
    profiles: [],
    pool: 'default',
    createdAt: NEVER_USED,
    lastUsedAt: NEVER_USED,
  };
  return {
    record,
    expanded: { config: { 'user.a': '1' }, devices: {} },
    metadata: undefined,
    templatesPath: join(root, '../templates'),
    root: { rootfsPath: root, owners: { uidBase: owner.uid, gidBase: owner.gid, size: 1 } },
    triggers: ['start'],
    ...changes,
  };
}
