// Our own part of the lab: the engine and the compute.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { get } from 'node:http';
import { fileURLToPath } from 'node:url';
import type { Processes } from './processes.ts';
import type { LabPaths } from './settings.ts';

export const bin = (name: string) => fileURLToPath(new URL(`../../../bin/${name}`, import.meta.url));

/** Whether the engine answers on its socket. */
export async function engineAnswers(socketPath: string): Promise<boolean> {
  return await new Promise((resolve) => {
    get({ socketPath, path: '/1.0', timeout: 5000 }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    }).on('error', () => resolve(false));
  });
}

export async function startEngine(paths: LabPaths, processes: Processes): Promise<void> {
  processes.start({ name: 'lighterd', argv: [bin('lighterd')], env: { LIGHTER_DIR: paths.lighter } });
  await processes.waitFor('lighterd', () => engineAnswers(join(paths.lighter, 'unix.socket')));
}

/** `extra` are further configuration files; what they say wins. */
export function startCompute(paths: LabPaths, processes: Processes, extra: readonly string[] = []): void {
  const files = [paths.computeConf, ...extra].flatMap((file) => ['--config-file', file]);
  processes.start({ name: 'nova-compute-lxd', argv: [bin('nova-compute-lxd'), ...files] });
}

/** Writes nova.conf options that come after the lab's own. */
export function overrideFile(paths: LabPaths, name: string, text: string): string {
  const file = join(paths.etc, 'nova', `${name}.conf`);
  writeFileSync(file, text, { mode: 0o600 });
  return file;
}
