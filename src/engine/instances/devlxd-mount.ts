// The directory of the socket through which instances ask about themselves, as it is mounted into them.
import { join } from 'node:path';
import type { RuntimeMount } from '#drivers/runtime/driver.ts';
import type { ConfigMap, EnginePaths } from '../types.ts';
import { parseBoolean } from './values.ts';

export function devlxdDirectory({ root }: Pick<EnginePaths, 'root'>): string {
  return join(root, 'devlxd');
}

export function devlxdMount(paths: Pick<EnginePaths, 'root'>): RuntimeMount {
  return { source: devlxdDirectory(paths), target: 'dev/lxd', type: 'none', options: ['bind', 'create=dir'] };
}

export function wantsDevlxd(config: ConfigMap): boolean {
  return parseBoolean(config['security.devlxd'], true);
}
