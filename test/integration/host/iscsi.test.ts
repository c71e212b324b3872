// iSCSI volumes with open-iscsi and the kernel's own target, which serves files of this machine to this machine.
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { mkdir, open, readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { VolumeConnection } from '#drivers/volume/driver.ts';
import { iscsi } from '#drivers/volume/iscsi/iscsi.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { silentLog } from '#src/lib/silent-log.ts';
import { volumeContract } from '../../contract/volume-contract.ts';
import { describeWith } from '../support.ts';

const TARGETS = '/sys/kernel/config/target';
const PORTAL = '127.0.0.1:3260';
const MIB = 2 ** 20;
const CHAP = { user: 'tester', password: 'of sixteen signs' };
const signal = (): AbortSignal => AbortSignal.timeout(60_000);
const host = new LinuxHost();

/** Targets are the kernel's, under configfs. */
function lacks(): string | undefined {
  if (!existsSync('/sys/class/iscsi_transport')) return 'an initiator of iSCSI in the kernel';
  return existsSync(TARGETS) ? undefined : 'targets of iSCSI in the kernel';
}

async function disks(): Promise<readonly string[]> {
  const found: string[] = [];
  for (const name of await readdir('/sys/class/block')) {
    const vendor = await host.readFile(`/sys/class/block/${name}/device/vendor`).catch(() => '');
    if (vendor.trim() === 'LIO-ORG') found.push(`/dev/${name}`);
  }
  return found;
}

/** One target with a unit for each file. */
class Target implements AsyncDisposable {
  readonly iqn: string;
  readonly folder = mkdtempSync(join(tmpdir(), 'lightervisor-iscsi-'));
  readonly #group: string;
  readonly #loops: string[] = [];
  readonly #name: string;

  constructor(name: string) {
    this.#name = name;
    this.iqn = `iqn.2010-10.org.openstack:${name}`;
    this.#group = `${TARGETS}/iscsi/${this.iqn}/tpgt_1`;
  }

  async start(units: number, { secret = false } = {}): Promise<void> {
    const group = this.#group;
    await mkdir(`${group}/np/${PORTAL}`, { recursive: true });
    for (let lun = 1; lun <= units; lun += 1) {
      const file = this.file(lun);
      writeFileSync(file, '');
      truncateSync(file, MIB);
      const loop = (await host.run(['losetup', '--find', '--show', file])).stdout.trim();
      this.#loops.push(loop);
      const store = this.#store(lun);
      await mkdir(store, { recursive: true });
      writeFileSync(`${store}/control`, `udev_path=${loop}`);
      writeFileSync(`${store}/enable`, '1');
      mkdirSync(`${group}/lun/lun_${lun}`);
      symlinkSync(store, `${group}/lun/lun_${lun}/unit`);
    }
    const attributes = { generate_node_acls: 1, cache_dynamic_acls: 1, demo_mode_write_protect: 0 };
    for (const [name, value] of Object.entries({ ...attributes, authentication: secret ? 1 : 0 })) {
      writeFileSync(`${group}/attrib/${name}`, String(value));
    }
    if (secret) {
      writeFileSync(`${group}/auth/userid`, CHAP.user);
      writeFileSync(`${group}/auth/password`, CHAP.password);
    }
    writeFileSync(`${group}/enable`, '1');
  }

  file(lun: number): string {
    return join(this.folder, `unit${lun}`);
  }

  #store(lun: number): string {
    return `${TARGETS}/core/iblock_${this.#name.length}${lun}/${this.#name}-${lun}`;
  }

  of(lun: number, data: Readonly<Record<string, unknown>> = {}): VolumeConnection {
    return { type: 'iscsi', data: { target_portal: PORTAL, target_iqn: this.iqn, target_lun: lun, ...data } };
  }

  async grow(lun: number, sizeBytes: number): Promise<void> {
    truncateSync(this.file(lun), sizeBytes);
    await host.run(['losetup', '--set-capacity', this.#loops[lun - 1] ?? '']);
  }

  remove(lun: number): void {
    unlinkSync(`${this.#group}/lun/lun_${lun}/unit`);
    rmdirSync(`${this.#group}/lun/lun_${lun}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    writeFileSync(`${this.#group}/enable`, '0');
    for (const name of await readdir(`${this.#group}/lun`)) this.remove(Number(name.slice('lun_'.length)));
    rmdirSync(`${this.#group}/np/${PORTAL}`);
    rmdirSync(this.#group);
    rmdirSync(join(this.#group, '..'));
    for (const [at, loop] of this.#loops.entries()) {
      rmdirSync(this.#store(at + 1));
      rmdirSync(join(this.#store(at + 1), '..'));
      await host.run(['losetup', '--detach', loop]);
    }
    rmSync(this.folder, { recursive: true });
  }
}

const driver = iscsi.create({ host, log: silentLog, mountFolder: '/mnt', mountOptions: null });

async function sessions(): Promise<readonly string[]> {
  return await host.list('/sys/class/iscsi_session');
}

async function nodes(): Promise<string> {
  return (await host.run(['iscsiadm', '--mode', 'node'], { okExitCodes: [0, 21] })).stdout;
}

describeWith(
  { root: true, commands: ['losetup', 'blockdev', 'mkfs.ext4'], extras: ['iscsiadm'], lacks },
  'volumes of iSCSI targets',
  () => {
    afterAll(async () => {
      expect([await sessions(), await disks(), await nodes()]).toEqual([[], [], '']);
    });

    describe('a driver of volumes', () => {
      volumeContract(async () => {
        const target = new Target('contract');
        await target.start(1);
        return {
          driver,
          connection: target.of(1),
          devices: disks,
          sizeBytes: async (device) => Number((await host.run(['blockdev', '--getsize64', device])).stdout),
          grow: (sizeBytes) => target.grow(1, sizeBytes),
          remove: async () => target.remove(1),
          [Symbol.asyncDispose]: () => target[Symbol.asyncDispose](),
        };
      });
    });

    describe('that want a password', () => {
      let target: Target;
      const login = (password: string) => ({ auth_method: 'CHAP', auth_username: CHAP.user, auth_password: password });
      beforeAll(async () => {
        target = new Target('with-password');
        await target.start(2, { secret: true });
      });
      afterAll(() => target[Symbol.asyncDispose]());

      it('serve those who know it, and leave nothing of others', async () => {
        for (const data of [{}, login('a wrong password')]) {
          await expect(driver.connect(target.of(1, data), signal())).rejects.toThrow('authorization failure');
          expect([await sessions(), await nodes()]).toEqual([[], '']);
        }

        const device = await driver.connect(target.of(1, login(CHAP.password)), signal());

        expect(await disks()).toEqual([device]);
        await driver.disconnect(target.of(1, login(CHAP.password)), signal());
      }, 120_000);

      it('keep what is written, unit by unit, and one session for all', async () => {
        const [one, two] = [1, 2].map((lun) => target.of(lun, login(CHAP.password)));
        if (!one || !two) throw new Error('two units are wanted');
        const devices = [await driver.connect(one, signal()), await driver.connect(two, signal())];
        for (const [at, device] of devices.entries()) {
          const file = await open(device, 'r+');
          await file.write(`unit ${at}`);
          await file.close();
        }
        expect(await sessions()).toHaveLength(1);

        await driver.disconnect(one, signal());
        expect(await sessions()).toHaveLength(1);
        await driver.disconnect(two, signal());

        const text = async (lun: number) => (await host.readFile(target.file(lun))).slice(0, 6);
        expect([await text(1), await text(2)]).toEqual(['unit 0', 'unit 1']);
      }, 120_000);

      it('stay as long as a program or a mount has the disk', async () => {
        const connection = target.of(1, login(CHAP.password));
        const device = await driver.connect(connection, signal());
        const file = await open(device, 'r');
        await expect(driver.disconnect(connection, signal())).rejects.toMatchObject({ kind: 'conflict' });
        await file.close();
        await host.run(['mkfs.ext4', '-q', '-F', '-O', '^has_journal', device]);
        const folder = join(target.folder, 'mounted');
        mkdirSync(folder);
        await host.run(['mount', device, folder]);
        await expect(driver.disconnect(connection, signal())).rejects.toThrow('it is mounted');
        await host.run(['umount', folder]);

        await driver.disconnect(connection, signal());
      }, 120_000);
    });
  },
);
