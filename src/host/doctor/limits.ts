// Limits of the kernel that many containers run into: LXD's table for production, and what each of them allows.
import { AppError } from '#src/lib/errors.ts';
import type { Finding, Raised } from '#src/lib/finding.ts';
import type { Host } from '../host.ts';
import { readIfPresent } from '../read-if-present.ts';

interface Limit {
  readonly key: string;
  readonly wanted: number;
  /** Of one container with systemd, as far as reports tell; absent: it is counted in another way. */
  readonly perContainer?: number;
}

const LIMITS: readonly Limit[] = [
  { key: 'fs.aio-max-nr', wanted: 524_288 },
  { key: 'fs.inotify.max_queued_events', wanted: 1_048_576 },
  { key: 'fs.inotify.max_user_instances', wanted: 1_048_576, perContainer: 8 },
  { key: 'fs.inotify.max_user_watches', wanted: 1_048_576, perContainer: 96 },
  { key: 'kernel.keys.maxbytes', wanted: 2_000_000, perContainer: 1000 },
  { key: 'kernel.keys.maxkeys', wanted: 2000, perContainer: 10 },
  { key: 'net.ipv4.neigh.default.gc_thresh3', wanted: 8192, perContainer: 1 },
  { key: 'net.ipv6.neigh.default.gc_thresh3', wanted: 8192, perContainer: 1 },
  { key: 'vm.max_map_count', wanted: 262_144 },
];

/** Read at boot. */
const FILE = '/etc/sysctl.d/60-lightervisor.conf';

/** What this kernel does not have is left out. */
export async function examineLimits(host: Host): Promise<readonly Finding[]> {
  const values = await currentLimits(host);
  return values.map(({ key, wanted, perContainer, value }) => {
    const isLow = value < wanted;
    return {
      area: 'limits',
      what: key,
      state: isLow ? 'note' : 'ok',
      found: String(value),
      advice: isLow ? `raise it to ${wanted} (lighter doctor --fix)` : '',
      ...(perContainer !== undefined && { containers: Math.floor(value / perContainer) }),
    };
  });
}

/** Never lowers one. */
export async function raiseLimits(host: Host): Promise<{ readonly raised: readonly Raised[]; readonly file: string }> {
  const low = (await currentLimits(host)).filter(({ value, wanted }) => value < wanted);
  const raised: Raised[] = [];
  for (const { key, value, wanted } of low) {
    try {
      await host.writeFile(pathOf(key), String(wanted));
    } catch (error) {
      throw new AppError('forbidden', `Cannot set ${key}: lighter doctor --fix must be run as root of the host`, {
        cause: error,
      });
    }
    raised.push({ key, from: value, to: wanted });
  }
  if (raised.length > 0) await host.writeFile(FILE, await fileText(host, raised));
  return { raised, file: FILE };
}

/** What an earlier run wrote stays. */
async function fileText(host: Host, raised: readonly Raised[]): Promise<string> {
  const before = (await readIfPresent(host, FILE)) ?? '# Limits that many containers on one host run into.\n';
  const isReplaced = (line: string): boolean => raised.some(({ key }) => line.split('=')[0]?.trim() === key);
  const kept = before.split('\n').filter((line) => line !== '' && !isReplaced(line));
  return `${[...kept, ...raised.map(({ key, to }) => `${key} = ${to}`)].join('\n')}\n`;
}

async function currentLimits(host: Host): Promise<readonly (Limit & { readonly value: number })[]> {
  const known: (Limit & { readonly value: number })[] = [];
  for (const limit of LIMITS) {
    const text = await readIfPresent(host, pathOf(limit.key));
    if (text !== undefined) known.push({ ...limit, value: Number(text.trim()) });
  }
  return known;
}

function pathOf(key: string): string {
  return `/proc/sys/${key.replaceAll('.', '/')}`;
}
