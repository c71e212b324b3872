// Instances from disk images on a real LXD and on our engine; what of the image's file system comes through.
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { link, mkdir, mkdtemp, open, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { POWER_STATE, type SpawnImage, type SpawnSpec } from '#drivers/virt/driver.ts';
import { DiskImages } from '#drivers/virt/lxd/disk-image/disk-images.ts';
import { LxdDriver } from '#drivers/virt/lxd/driver.ts';
import { DEFAULT_OPTIONS } from '#drivers/virt/lxd/options.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { silentLog } from '#src/lib/log.ts';
import { poll } from '#src/lib/wait.ts';
import { DISK_TOOLS, type DiskOptions, makeQcow2, makeRawDisk } from '../disk-images.ts';
import { execIn } from '../guest-exec.ts';
import { debianSystemdRoot, makeBusyboxRoot } from '../images.ts';
import { describeWith } from '../support.ts';
import { chosenEngines, type EngineName, PROGRAMS, type RunningEngine, startEngine } from './engines.ts';

const run = promisify(execFile);
const GIB = 1024 ** 3;
const soon = (): AbortSignal => AbortSignal.timeout(110_000);

for (const name of chosenEngines(['lighterd']))
  describeWith({ root: true, commands: [PROGRAMS[name], 'busybox', ...DISK_TOOLS] }, `disk images on ${name}`, () =>
    suite(name),
  );

function suite(name: EngineName): void {
  let engine: RunningEngine;
  let folder: string;
  let driver: LxdDriver;
  const file = (of: string): string => join(folder, of);

  const specOf = (path: string, diskFormat: string): SpawnSpec & { readonly image: SpawnImage } => {
    const uuid = randomUUID();
    return {
      uuid,
      name: `instance-${uuid.slice(0, 8)}`,
      displayName: 'disk',
      hostname: 'disk-1',
      projectId: 'project',
      userId: 'user',
      flavor: { vcpus: 1, memoryMib: 512, rootGib: 2, cpuIds: null, ephemeralsGib: [], swapMib: 0, extraSpecs: {} },
      image: {
        id: randomUUID(),
        cacheKey: randomUUID(),
        name: 'disk',
        diskFormat,
        containerFormat: 'bare',
        sizeBytes: null,
        properties: {},
        open: async () => createReadStream(path),
      },
    };
  };

  const spawn = async (spec: SpawnSpec): Promise<void> => driver.spawn(spec, { network: async () => [] }, soon());

  beforeAll(async () => {
    engine = await startEngine(name);
    folder = await mkdtemp(join(tmpdir(), 'disk-images-'));
    await makeBusyboxRoot(file('root'));
    await mkdir(file('root/boot'));
    await writeFile(
      file('root/etc/fstab'),
      'LABEL=cloudimg-rootfs / ext4 defaults 0 1\ntmpfs /mnt tmpfs defaults 0 0\n',
    );
    await makeRawDisk(file('gpt.raw'), file('root'), { sizeMib: 40 });
    await makeRawDisk(file('mbr.raw'), file('root'), { table: 'mbr', fileSystem: ['-t', 'ext3'], sizeMib: 40 });
    await makeQcow2(file('gpt.raw'), file('plain.qcow2'));
    await makeQcow2(file('gpt.raw'), file('old.qcow2'), ['-o', 'compat=0.10,cluster_size=4096']);
    await makeQcow2(file('gpt.raw'), file('packed.qcow2'), ['-c']);
    await makeQcow2(file('gpt.raw'), file('zstd.qcow2'), ['-c', '-o', 'compression_type=zstd']);
    driver = new LxdDriver({
      log: silentLog,
      host: new LinuxHost(),
      options: {
        ...DEFAULT_OPTIONS,
        endpoint: { kind: 'unix', socketPath: engine.socketPath },
        stateFolder: file('state'),
      },
    });
    await driver.start(soon());
  });

  afterAll(async () => {
    await driver.stop();
    await engine[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  it.each([
    ['plain.qcow2', 'qcow2'],
    ['old.qcow2', 'qcow2'],
    ['packed.qcow2', 'qcow2'],
    ['zstd.qcow2', 'qcow2'],
    ['gpt.raw', 'raw'],
    ['mbr.raw', 'raw'],
  ])('%s boots', async (image, format) => {
    const spec = specOf(file(image), format);

    await spawn(spec);
    const { stdout } = await execIn(engine.client, spec.name, [
      'sh',
      '-c',
      'cat /etc/hostname; grep -v "^#" /etc/fstab',
    ]);
    await driver.destroy(spec.uuid, soon());

    await expect(spawn({ ...spec, flavor: { ...spec.flavor, rootGib: 0.001 } })).rejects.toMatchObject({
      name: 'DiskTooSmallError',
      flavorBytes: 0.001 * GIB,
    });
    expect(stdout).toBe('disk-1\ntmpfs /mnt tmpfs defaults 0 0\n');
    expect(await readdir(file('state/disk-images'))).toEqual([]);
  });

  it('is read once for many instances, and what was snapshot of one boots again', async () => {
    const first = specOf(file('plain.qcow2'), 'qcow2');
    let opened = 0;
    const image = { ...first.image, open: async () => (opened++, createReadStream(file('plain.qcow2'))) };
    const specs = [first, specOf('', ''), specOf('', '')].map((spec) => ({ ...spec, image }));

    await Promise.all(specs.map(spawn));
    await using snapshot = await driver.snapshot(first.uuid, soon());
    const { diskFormat, containerFormat } = snapshot;
    const copy = specOf('', diskFormat);
    const content = async (): Promise<Readable> => snapshot.open(soon());
    await spawn({ ...copy, image: { ...copy.image, containerFormat, open: content } });

    expect(opened).toBe(1);
    expect(await driver.powerState(copy.uuid, soon())).toBe(POWER_STATE.running);
    for (const { uuid } of [...specs, copy]) await driver.destroy(uuid, soon());
  });

  it('is refused with a reason, and nothing stays', async () => {
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', '/etc/passwd', file('backed.qcow2')]);
    const elsewhere = `data_file=${file('data.raw')}`;
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', elsewhere, file('outside.qcow2'), '1M']);
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', file('empty.qcow2'), '20G']);
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', file('huge.qcow2'), '200G']);
    await run('cp', [file('plain.qcow2'), file('cut.qcow2')]);
    await run('truncate', ['-s', '2M', file('cut.qcow2')]);

    const refusals = [
      ['backed.qcow2', 'qcow2', 'backing file'],
      ['outside.qcow2', 'qcow2', 'data in another file'],
      ['empty.qcow2', 'qcow2', 'no root file system'],
      ['huge.qcow2', 'qcow2', 'max_disk_image'],
      ['cut.qcow2', 'qcow2', 'beyond its end'],
      ['plain.qcow2', 'raw', 'declared as raw and is a qcow2 disk'],
      ['gpt.raw', 'qcow2', 'declared as qcow2 and is a raw disk'],
    ] as const;

    for (const [image, format, reason] of refusals) {
      await expect(spawn(specOf(file(image), format))).rejects.toMatchObject({
        kind: 'invalid',
        message: expect.stringContaining(reason) as string,
      });
    }
    expect(await readdir(file('state/disk-images'))).toEqual([]);
    expect(await driver.listInstances(soon())).toEqual([]);
  });

  it('brings up a whole Debian', async () => {
    await run('cp', ['-a', await debianSystemdRoot(), file('debian')]);
    await writeFile(
      file('debian/etc/fstab'),
      'PARTUUID=0a-1 / ext4 rw,discard,errors=remount-ro 0 1\nPARTUUID=0a-15 /boot/efi vfat defaults 0 0\n',
    );
    await makeRawDisk(file('debian.raw'), file('debian'), { sizeMib: 600 });
    await makeQcow2(file('debian.raw'), file('debian.qcow2'), ['-c']);
    const spec = specOf(file('debian.qcow2'), 'qcow2');

    await spawn(spec);
    const inside = async (...command: string[]): Promise<string> =>
      (await execIn(engine.client, spec.name, command)).stdout.trim();
    const isUp = async (): Promise<string | undefined> => {
      const state = await inside('systemctl', 'is-system-running');
      return /running|degraded/.test(state) ? state : undefined;
    };
    await poll(isUp, 500, soon());
    const failed = await inside('systemctl', '--failed', '--no-legend', '--plain');
    const seen = await inside('hostname');
    const capabilities = await inside('sh', '-c', 'ping -c1 -W1 127.0.0.1 >/dev/null && echo pings');
    await driver.destroy(spec.uuid, soon());

    expect(failed).toBe('');
    expect(seen).toBe('disk-1');
    expect(capabilities).toBe('pings');
  }, 240_000);
}

describeWith(
  { root: true, commands: ['getfattr', 'setfacl', 'setcap', 'tar', 'zstd', ...DISK_TOOLS] },
  'a root file system in a disk image',
  () => {
    let folder: string;
    const file = (of: string): string => join(folder, of);

    const imagesIn = (state: string, maxDiskBytes = 10 * GIB): DiskImages =>
      new DiskImages({ host: new LinuxHost(), log: silentLog, folder: file(state), maxDiskBytes });

    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), 'disk-root-'));
      await makeBusyboxRoot(file('root'));
      await mkdir(file('root/x/empty'), { recursive: true });
      const sh = async (script: string): Promise<unknown> => run('sh', ['-ec', script], { cwd: file('root') });
      await link(file('root/etc/passwd'), file('root/x/passwd'));
      await sh(`
      cp /bin/true x/capable; setcap cap_net_raw=ep x/capable; cp x/capable x/set; chmod 6755 x/set
      echo a > x/owned; chown 1000:70000 x/owned; setfacl -m u:1234:rw,g:99:r x/owned; setfacl -d -m u:7:rwx x/empty
      setfattr -n user.note -v hello x/owned; ln -s ../etc/passwd x/short; ln -s "$(printf 'p/%.0s' $(seq 200))" x/long
      mkfifo x/pipe; mknod x/null c 1 3; touch -d '1960-01-01 UTC' x/early
      truncate -s 5M x/holes; echo end >> x/holes; head -c 9000000 /dev/urandom > x/large
      mkdir x/many; for i in $(seq 1500); do : > "x/many/a rather long name of a file, number $i"; done
      touch "x/$(printf 'odd\\377\\nname')"; echo 'LABEL=x / ext4' > etc/fstab
    `);
    });

    afterAll(async () => rm(folder, { recursive: true, force: true }));

    const listing = async (of: string): Promise<string> => {
      const shape = '%P %y %m %U %G %n %l %TY-%Tm-%Td\\n';
      const script = `cd "$1"; find . -mindepth 1 ! -name lost+found ! -type c -printf '${shape}' | sort
      find . -type f ! -path ./etc/fstab -exec sha256sum {} + | sort
      getfattr -Rdhm - . 2>/dev/null | sort; find x -type d -o -type f | sort | getfacl -n - 2>/dev/null || true`;
      return (await run('sh', ['-c', script, 'sh', of], { maxBuffer: 64 * 1024 ** 2 })).stdout;
    };

    it.each([
      ['ext4', ['-t', 'ext4']],
      ['ext4 of Debian 13', ['-t', 'ext4', '-O', 'orphan_file,metadata_csum_seed']],
      ['ext4 with content in inodes', ['-t', 'ext4', '-O', 'inline_data', '-I', '512']],
      ['ext3', ['-t', 'ext3', '-I', '256']],
      ['ext2 with small blocks', ['-t', 'ext2', '-b', '1024', '-I', '256']],
    ] as const)('of %s keeps owners, modes, links, times, lists, capabilities', async (label, fileSystem) => {
      const options: DiskOptions = { fileSystem: [...fileSystem, '-N', '8000'], sizeMib: 100 };
      await makeRawDisk(file(`${label}.raw`), file('root'), options);
      await mkdir(file(label));

      const { content, diskBytes } = await imagesIn('state').open(
        createReadStream(file(`${label}.raw`)),
        'raw',
        soon(),
      );
      expect(diskBytes).toBe((await stat(file(`${label}.raw`))).size);
      const tar = ['tar', '--zstd', '--numeric-owner', '--acls', '--xattrs', "--xattrs-include='*'", '-xpf', '-'];
      await new LinuxHost().run(['sh', '-c', `exec ${tar.join(' ')}`], { cwd: file(label), input: content });

      const before = await listing(file('root'));
      expect((await listing(file(label))).split('\n')).toEqual(before.split('\n'));
      expect((await run('cat', [file(`${label}/etc/fstab`)])).stdout).toBe('# not in a container: LABEL=x / ext4\n');
    });

    it('is given by a process without rights, and leaves nothing behind when it is given up', async () => {
      await makeRawDisk(file('slow.raw'), file('root'), { sizeMib: 100 });
      const { content } = await imagesIn('slow').open(createReadStream(file('slow.raw')), 'raw', soon());
      const readers = async (): Promise<string[]> => {
        const { stdout } = await run('sh', [
          '-c',
          'grep -la disk-image-reader /proc/[0-9]*/cmdline 2>/dev/null || true',
        ]);
        const folders = stdout.split('\n').filter((line) => line !== '' && !line.includes(String(process.pid)));
        const texts = await Promise.all(
          folders.map((line) => run('cat', [line.replace('cmdline', 'status')]).catch(() => undefined)),
        );
        return texts.flatMap((found) => (found ? [found.stdout] : []));
      };

      const [status = ''] = await readers();
      content.destroy();
      await poll(async () => ((await readers()).length === 0 ? true : undefined), 50, soon());

      expect(status).toMatch(/^Uid:\s+65534\s+65534\s+65534\s+65534$/m);
      expect(status).toMatch(/^Groups:\s*$/m);
      expect(status).toMatch(/^CapEff:\s+0+$/m);
      expect(status).toMatch(/^NoNewPrivs:\s+1$/m);
      expect(await readdir(file('slow'))).toEqual([]);
    });

    it('that needs another file system to be read is refused by name', async () => {
      const at = async (name: string, place: number, bytes: string): Promise<Readable> => {
        const disk = await open(file(name), 'w');
        await disk.truncate(100 * 1024 * 1024);
        await disk.write(Buffer.from(bytes, 'latin1'), 0, bytes.length, place);
        await disk.close();
        return createReadStream(file(name));
      };
      const refused = async (source: Readable): Promise<string> =>
        imagesIn('foreign')
          .open(source, 'raw', soon())
          .then(({ content }) => text(content))
          .catch((error: Error) => error.message);

      expect(await refused(await at('xfs', 0, 'XFSB'))).toContain('is on xfs; ext2, ext3 and ext4 are taken');
      expect(await refused(await at('btrfs', 0x1_0040, '_BHRfS_M'))).toContain('is on btrfs');
      expect(await refused(await at('luks', 0, 'LUKS\xba\xbe'))).toContain('is on LUKS');
      await makeRawDisk(file('dirty.raw'), file('root'), { sizeMib: 100 });
      const dirty = await open(file('dirty.raw'), 'r+');
      await dirty.write(Buffer.from([0xc6]), 0, 1, 4 * 1024 * 1024 + 1024 + 96);
      await dirty.close();
      expect(await refused(createReadStream(file('dirty.raw')))).toContain('not unmounted cleanly');
      expect(await readdir(file('foreign'))).toEqual([]);
    });

    it('is not read by a machine without room for it', async () => {
      await mkdir(file('full'));
      await run('mount', ['-t', 'tmpfs', '-o', 'size=1M', 'tmpfs', file('full')]);
      try {
        const opened = imagesIn('full/in').open(createReadStream(file('slow.raw')), 'raw', soon());

        await expect(opened).rejects.toMatchObject({
          kind: 'unavailable',
          message: expect.stringContaining('no room') as string,
        });
        expect(await readdir(file('full/in'))).toEqual([]);
      } finally {
        await run('umount', [file('full')]);
      }
    });
  },
);
