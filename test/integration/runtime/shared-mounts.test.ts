// The directory by which mounts come into containers, after a daemon that was killed.
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { SharedMounts } from '#drivers/runtime/lxc/shared-mounts.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { describeWith } from '../support.ts';

const container = { name: 'c1', configPath: '', logPath: '', consoleLogPath: '' };

describeWith({ root: true }, 'the directory by which mounts come into containers', () => {
  it('has nothing any more of mounts that were cut off, and what was mounted stays whole', async () => {
    const host = new LinuxHost();
    const work = await mkdtemp(join(tmpdir(), 'lighter-shared-'));
    const [root, source] = [join(work, 'shmounts'), join(work, 'source')];
    await mkdir(source);
    await writeFile(join(source, 'kept'), 'kept');
    const shared = new SharedMounts(host, root);
    await shared.prepare(container);
    const place = (name: string): string => join(shared.directory(container), name);
    const bind = (from: string, target: string) =>
      host.mounts.mount({ source: from, target, type: '', flags: ['bind'] });
    for (const name of ['empty', 'directory']) await mkdir(place(name));
    await writeFile(place('file'), '');
    await bind(source, place('directory'));
    await bind(join(source, 'kept'), place('file'));

    try {
      await shared.sweep(container);

      expect(await readdir(shared.directory(container))).toEqual([]);
      expect(await readFile(join(source, 'kept'), 'utf8')).toBe('kept');
      await shared.sweep({ ...container, name: 'never-started' });
    } finally {
      for (const mounted of await host.mounts.mountsUnder(root)) await host.mounts.unmount(mounted);
      await rm(work, { recursive: true });
    }
  });
});
