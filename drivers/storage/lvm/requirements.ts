// What a host must have for pools on LVM.
import { join } from 'node:path';
import type { Host } from '#src/host/host.ts';
import { readIfPresent } from '#src/host/read-if-present.ts';

/** Programs, and the Debian packages that have them. */
const PROGRAMS = {
  lvcreate: 'lvm2',
  thin_check: 'thin-provisioning-tools',
  'mkfs.ext4': 'e2fsprogs',
  losetup: 'mount',
} as const;
const FOLDERS = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];

/** In words, each with what to do about it; empty: nothing. */
export async function missingForLvm(host: Host): Promise<readonly string[]> {
  const missing: string[] = [];
  if (!(await hasDeviceMapper(host))) missing.push('the device mapper in the kernel (modprobe dm_thin_pool)');
  for (const [program, name] of Object.entries(PROGRAMS)) {
    if (!(await isInstalled(host, program))) missing.push(`${program} (apt install ${name})`);
  }
  return missing;
}

/** Loaded when the kernel has it as a module. */
async function hasDeviceMapper(host: Host): Promise<boolean> {
  if (await isLoaded(host)) return true;
  await host.run(['modprobe', 'dm_thin_pool']).catch(() => undefined); // whatever it says, the kernel has it then or not
  return isLoaded(host);
}

async function isLoaded(host: Host): Promise<boolean> {
  return /\sdevice-mapper$/mu.test((await readIfPresent(host, '/proc/misc')) ?? '');
}

async function isInstalled(host: Host, program: string): Promise<boolean> {
  for (const folder of FOLDERS) if (await host.exists(join(folder, program))) return true;
  return false;
}
