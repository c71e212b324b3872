// Cinder's volumes as the end-to-end tests see them: through its API, and on this host.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { run } from './commands.ts';
import { cloud, paths } from './suite.ts';

export interface Volume {
  readonly id: string;
  readonly status: string;
  readonly size: number;
  readonly attachments: readonly unknown[];
}

export const VOLUME_WAIT_MS = 60_000;
const VERSION = { 'OpenStack-API-Version': 'volume 3.44' };

export async function askCinder<T>(method: 'GET' | 'POST' | 'DELETE', path: string, body?: unknown): Promise<T> {
  const answer = await cloud.volume.request({ method, path, headers: VERSION, ...(body !== undefined && { body }) });
  return answer.data as T;
}

/** Of one GiB, available. `fields`: of Cinder's request. */
export async function newVolume(name: string, fields: Readonly<Record<string, unknown>> = {}): Promise<string> {
  const { volume } = await askCinder<{ volume: Volume }>('POST', '/volumes', { volume: { name, size: 1, ...fields } });
  await waitForVolume(volume.id, 'available');
  return volume.id;
}

export async function volumes(): Promise<readonly Volume[]> {
  return (await askCinder<{ volumes: readonly Volume[] }>('GET', '/volumes')).volumes;
}

export async function waitForVolume(id: string, status: string): Promise<Volume> {
  for (const deadline = Date.now() + VOLUME_WAIT_MS; ; await sleep(250)) {
    const { volume } = await askCinder<{ volume: Volume }>('GET', `/volumes/${id}`);
    if (volume.status === status) return volume;
    if (Date.now() > deadline) throw new Error(`volume ${id} is ${volume.status}, not ${status}`);
  }
}

export async function waitUntilVolumeIsGone(id: string): Promise<void> {
  for (const deadline = Date.now() + VOLUME_WAIT_MS; ; await sleep(250)) {
    if (!(await volumes()).some((one) => one.id === id)) return;
    if (Date.now() > deadline) throw new Error(`volume ${id} stays`);
  }
}

/** Files of the share that are block devices of this host; other labs on it have theirs. */
export async function connectedFiles(): Promise<readonly string[]> {
  const files = (await run(['losetup', '--list', '--noheadings', '--output', 'BACK-FILE'])).split('\n');
  const own = files.map((file) => file.trim()).filter((file) => file.startsWith(paths.data));
  return own.filter((file) => /volume-[0-9a-f-]{36}/.test(file));
}

/** Folders of volumes that the compute thinks are connected. */
export function notedVolumes(): readonly string[] {
  const folder = join(paths.data, 'compute/volumes');
  return readdirSync(folder).flatMap((boot) => readdirSync(join(folder, boot)));
}
