// The ids that root may give to containers: /etc/subuid and /etc/subgid.
import type { Finding } from '#src/lib/finding.ts';
import type { Host } from '../host.ts';
import { readIfPresent } from '../read-if-present.ts';

/** Ids of one container. */
const RANGE = 65_536;
/** What is used where the files say nothing of root, as LXD does it. */
const DEFAULT_SIZE = 1_000_000_000;

export async function examineIds(host: Host): Promise<readonly Finding[]> {
  return Promise.all(['/etc/subuid', '/etc/subgid'].map((path) => examine(host, path)));
}

async function examine(host: Host, path: string): Promise<Finding> {
  const lines = ((await readIfPresent(host, path)) ?? '').split('\n').map((line) => line.split(':'));
  const sizes = lines.filter(([name]) => name === 'root' || name === '0').map(([, , size]) => Number(size));
  const size = sizes.length === 0 ? DEFAULT_SIZE : Math.max(...sizes);
  const found = sizes.length === 0 ? `no line for root: ${DEFAULT_SIZE} ids from 1000000` : `${size} ids for root`;
  const containers = Math.floor(size / RANGE);
  const common = { area: 'ids', what: path, found } as const;
  if (containers > 0) return { ...common, state: 'ok', advice: '' };
  const advice = `a container needs ${RANGE}: write root:1000000:1000000000 into ${path}`;
  return { ...common, state: 'bad', advice };
}
