// Images whose members want out of the root, or are what no file system should hold: from the upload to the running container.
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Member, pax } from '../host/tar-writer.ts';
import { run } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';
import { directory, type Fate, file, hardLink, HostileLab, link, METADATA } from './hostile-support.ts';

type Stage = Fate['stage'];
interface Case {
  readonly members: (outside: string) => readonly Member[];
  /** Where it may end. */
  readonly ends: readonly Stage[];
}

const HOSTNAME_TEMPLATE = `architecture: x86_64
templates:
  /etc/hostname: {when: [create, start], template: t}
  /etc/made/by/template: {when: [start], template: t}
`;
const RUNS: readonly Stage[] = ['started'];
const REFUSED: readonly Stage[] = ['import', 'create'];
const EITHER: readonly Stage[] = ['import', 'create', 'start', 'started'];
const up = '../'.repeat(12).slice(0, -1);

const CASES: Readonly<Record<string, Case>> = {
  'an absolute member': { members: (outside) => [file(join(outside, 'evil'))], ends: RUNS },
  'a member that climbs out': { members: (outside) => [file(`${up}${outside}/evil`)], ends: EITHER },
  'a member that climbs out of rootfs': { members: (outside) => [file(`rootfs/${up}${outside}/evil`)], ends: EITHER },
  'a member through a link': {
    members: (outside) => [link('rootfs/l', outside), file('rootfs/l/evil')],
    ends: EITHER,
  },
  'a member through a chain of links': {
    members: (outside) => [
      link('rootfs/a', 'b/c'),
      directory('rootfs/b/'),
      link('rootfs/b/c', up),
      file(`rootfs/a${outside}/evil`),
    ],
    ends: EITHER,
  },
  'a directory that becomes a link': {
    members: (outside) => [directory('rootfs/d/'), link('rootfs/d', outside), file('rootfs/d/evil')],
    ends: EITHER,
  },
  'a link that becomes a directory': {
    members: (outside) => [
      link('rootfs/d', outside),
      { ...directory('rootfs/d/'), mode: 0o700, uid: 5 },
      file('rootfs/d/evil'),
    ],
    ends: EITHER,
  },
  'a file that becomes a directory': {
    members: () => [file('rootfs/d'), directory('rootfs/d/'), file('rootfs/d/f')],
    ends: EITHER,
  },
  'the same file a hundred times': { members: () => Array.from({ length: 100 }, () => file('rootfs/f')), ends: RUNS },
  'a hard link to a file of the host': {
    members: (outside) => [hardLink('rootfs/h', join(outside, 'secret')), file('rootfs/h')],
    ends: EITHER,
  },
  'a hard link that climbs out': {
    members: (outside) => [hardLink('rootfs/h', `${up}${outside}/secret`), file('rootfs/h')],
    ends: EITHER,
  },
  'a hard link to a link': {
    members: (outside) => [
      link('rootfs/l', join(outside, 'secret')),
      hardLink('rootfs/h', 'rootfs/l'),
      file('rootfs/h'),
    ],
    ends: EITHER,
  },
  'a hard link through a link': {
    members: (outside) => [
      link('rootfs/l', outside),
      hardLink('rootfs/h', 'rootfs/l/secret'),
      { ...file('rootfs/h'), mode: 0o7777 },
    ],
    ends: EITHER,
  },
  'a metadata file that comes again as a link': {
    members: (outside) => [link('metadata.yaml', join(outside, 'secret'))],
    ends: REFUSED,
  },
  'a root that comes again as a link': { members: (outside) => [link('rootfs', outside)], ends: EITHER },
  'folders of templates that are a link': {
    members: (outside) => [link('templates', outside), file('templates/t')],
    ends: REFUSED,
  },
  'a template that is a link': {
    members: (outside) => [directory('templates/'), link('templates/t', join(outside, 'secret'))],
    ends: REFUSED,
  },
  'a template that is a pipe': {
    members: () => [directory('templates/'), { name: 'templates/t', type: '6' }],
    ends: REFUSED,
  },
  'a template that is a directory': {
    members: () => [directory('templates/'), directory('templates/t/')],
    ends: REFUSED,
  },
  'a template that is not there': { members: () => [], ends: REFUSED },
  'a host name that is a link to the host': {
    members: (outside) => [
      file('templates/t'),
      { ...file('rootfs/etc/hostname'), mode: 0o4777 },
      link('rootfs/etc/hostname', join(outside, 'secret')),
    ],
    ends: RUNS,
  },
  'an /etc that is a link to the host': {
    members: (outside) => [
      file('templates/t'),
      file('rootfs/etc2/x'),
      link('rootfs/etc/made', outside),
      link('rootfs/etc/hostname', `${up}${outside}/folder/file`),
    ],
    ends: RUNS,
  },
  'a host name that is a pipe': {
    members: () => [file('templates/t'), { name: 'rootfs/etc/hostname', type: '6' }],
    ends: ['create', 'start'],
  },
  'a host name that is a directory': {
    members: () => [file('templates/t'), directory('rootfs/etc/hostname2/'), link('rootfs/etc/hostname', 'hostname2')],
    ends: ['create', 'start'],
  },
  'a host name that leads in a circle': {
    members: () => [file('templates/t'), link('rootfs/etc/hostname', 'hostname')],
    ends: ['create', 'start'],
  },
  'an init that is a link to the host': {
    members: (outside) => [link('rootfs/sbin/init', join(outside, 'secret'))],
    ends: ['start', 'started'],
  },
  'a /dev that is a link': {
    members: (outside) => [link('rootfs/dev', outside)],
    ends: EITHER,
  },
  'a /proc and a /sys that are links': {
    members: (outside) => [link('rootfs/proc', outside), link('rootfs/sys', outside)],
    ends: EITHER,
  },
  'attributes that overlayfs and the kernel believe': {
    members: (outside) => [
      pax({
        'SCHILY.xattr.trusted.overlay.redirect': outside,
        'SCHILY.xattr.trusted.overlay.opaque': 'y',
        'SCHILY.xattr.user.overlay.redirect': outside,
        'SCHILY.xattr.security.selinux': 'x',
        'SCHILY.xattr.security.ima': 'x',
      }),
      directory('rootfs/d/'),
    ],
    ends: RUNS,
  },
  'a capability in no form that the kernel knows': {
    members: () => [pax({ 'SCHILY.xattr.security.capability': 'garbage' }), file('rootfs/d')],
    ends: EITHER,
  },
  'an ACL that is none': { members: () => [pax({ 'SCHILY.acl.access': 'a::b' }), file('rootfs/d')], ends: EITHER },
  'names that are no UTF-8': {
    members: () => [file(Buffer.from('rootfs/\xff\xfe\x80', 'latin1')), file(Buffer.from('rootfs/\xc3(', 'latin1'))],
    ends: RUNS,
  },
  'names with line ends and control characters': {
    members: () => [file('rootfs/\x1b]0;evil\x07\n-rw-r--r-- 0/0 9 2026-01-01 00:00 x'), file('rootfs/\r\n\t\x08')],
    ends: RUNS,
  },
  'names that look like options': { members: () => [file('--help'), file('rootfs/-rf'), file('-rf')], ends: RUNS },
  'a NUL in a name': { members: () => [pax({ path: 'rootfs/a\0b' }), file('rootfs/c')], ends: EITHER },
  'owners and times that no computer has': {
    members: () => [
      pax({ uid: '4294967295', gid: '-1', mtime: '1e400', atime: 'nan' }),
      file('rootfs/a'),
      pax({ uid: '99999999999999999999' }),
      file('rootfs/b'),
    ],
    ends: EITHER,
  },
  'members of types that nobody writes any more': {
    members: () =>
      ['M', 'V', 'D', 'N', 'Z', '7', 'X'].map((type) => ({ name: `rootfs/type-${type}`, type, data: 'x' })),
    ends: EITHER,
  },
  'a header that renames all that follow': {
    members: (outside) => [
      { ...pax({ path: `${up}${outside}/evil`, linkpath: outside }), type: 'g' },
      file('rootfs/a'),
    ],
    ends: EITHER,
  },
};

describeWith({ root: true, commands: ['lxc-start', 'busybox', 'tar'] }, 'an image with', () => {
  let lab: HostileLab;

  beforeAll(async () => {
    lab = await HostileLab.start();
  });
  afterAll(() => lab[Symbol.asyncDispose]());

  it.each(Object.keys(CASES))('%s harms nobody', async (name) => {
    const { members, ends } = CASES[name] ?? { members: () => [], ends: [] };

    const all = members(lab.outside);
    const isTemplated = /template|host name|\/etc/u.test(name);
    const fate = await lab.fate(lab.image(all, isTemplated ? HOSTNAME_TEMPLATE : METADATA));

    expect(ends, fate.error).toContain(fate.stage);
    await lab.expectHarmless(fate);
  });

  it('device nodes and set-uid files gives them to nobody on the host', async () => {
    const nodes: Member[] = [
      { name: 'rootfs/disk', type: '4', device: [8, 0], mode: 0o666 },
      { name: 'rootfs/memory', type: '3', device: [1, 1], mode: 0o666 },
      { name: 'rootfs/white', type: '3', device: [0, 0], mode: 0o666 },
      { name: 'rootfs/pipe', type: '6', mode: 0o666 },
      { ...file('rootfs/su', '#!/bin/sh\n'), mode: 0o6777 },
    ];
    const uploaded = await lab.upload(lab.image(nodes));
    await lab.end(uploaded);
    const { fingerprint } = (await lab.daemon.call('GET', uploaded.operation)).metadata.metadata;

    const fate = await lab.fateOfImported(fingerprint, async () => {
      const pool = join(lab.daemon.root, 'storage-pools/default');
      const found = await run('find', [pool, '(', '-type', 'b', '-o', '-type', 'c', ')', '-not', '-path', '*/dev/*']);
      expect(found.stdout).toBe('');
      const su = (await run('find', [pool, '-name', 'su', '-perm', '-4000'])).stdout.trim().split('\n');
      expect(su).not.toEqual(['']);
      for (const path of su) await expect(run('setpriv', ['--reuid=65534', 'stat', path])).rejects.toThrow();
    });

    expect(fate).toEqual({ stage: 'started', error: '' });
    await lab.expectHarmless(fate);
    expect(await readFile(join(lab.outside, 'secret'), 'utf8')).toBe('of the host');
    expect(await readdir(join(lab.daemon.root, 'images'))).toEqual([]);
  });
});
