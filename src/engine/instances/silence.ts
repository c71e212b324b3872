// A paused instance answers nobody, if it is to be like a virtual machine: its processes stand still, but its network is the host's kernel,
// which would go on answering. A table of nftables in the instance's own network namespace, so nothing of it outlives the instance
// (docs/decisions/0023).
import { readlink } from 'node:fs/promises';
import type { RuntimeDriver } from '#drivers/runtime/driver.ts';
import { AppError } from '#src/lib/errors.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import { expander } from './expansion.ts';
import type { Life } from './supervisor.ts';
import { parseBoolean } from './values.ts';

const WANTED = 'lighter.pause.silent';
/** As long as the table may be there; of one life (withoutLife). */
const NOTE = 'volatile.lighter.silent';
/** A namespace that is not the instance's own. */
const SHARES_NETWORK = /^\s*lxc\.(namespace|net)\b/mu;
const LIMIT_MS = 30_000;

const TABLE = 'inet lighter_pause';
const SET = `add table ${TABLE}
add chain ${TABLE} in { type filter hook prerouting priority -450; policy drop; }
add chain ${TABLE} out { type filter hook output priority -450; policy drop; }
`;
/** Also where there is none. */
const LIFT = `add table ${TABLE}\ndelete table ${TABLE}\n`;

export interface SilenceParts {
  readonly context: EngineContext;
  readonly runtime: RuntimeDriver;
}

/** After the freeze, by the holder of the lock. One that goes on answering is frozen all the same: that is logged. */
export async function silence(parts: SilenceParts, record: InstanceRecord, life: Life): Promise<void> {
  const { database, log } = parts.context;
  const { config } = expander(database)(record);
  if (!parseBoolean(config[WANTED], false)) return;
  const limit = AbortSignal.timeout(LIMIT_MS);
  try {
    if (SHARES_NETWORK.test(config['raw.lxc'] ?? ''))
      throw new AppError('unsupported', 'raw.lxc has a network of its own');
    database.instances.update(record.id, { config: { ...record.config, [NOTE]: 'true' } });
    await inNetworkOf(parts, life, SET, limit);
  } catch (error) {
    log.warn('a paused instance goes on answering the network', { instance: record.name, error });
    // nft sets all or nothing; one that was cut off may have set it, and the thaw is to know
    if (!limit.aborted) database.instances.update(record.id, { config: record.config });
  }
}

/** By the holder of the lock. AppError 'unavailable': it stays frozen, since nobody would reach it. */
export async function thaw(
  parts: SilenceParts,
  record: InstanceRecord,
  life: Life,
  signal: AbortSignal,
): Promise<void> {
  await endSilence(parts, record, life);
  await parts.runtime.unfreeze(life.container, signal);
}

async function endSilence(parts: SilenceParts, { id, project, name }: InstanceRecord, life: Life): Promise<void> {
  const { instances } = parts.context.database;
  const { [NOTE]: note, ...config } = instances.get(project, name).config;
  if (note === undefined) return;
  try {
    await inNetworkOf(parts, life, LIFT, AbortSignal.timeout(LIMIT_MS));
  } catch (cause) {
    const text =
      'The network of the paused instance cannot be given back (is nftables installed?); a forced stop still works';
    throw new AppError('unavailable', text, { cause });
  }
  instances.update(id, { config });
}

async function inNetworkOf(
  { context, runtime }: SilenceParts,
  life: Life,
  script: string,
  signal: AbortSignal,
): Promise<void> {
  const pid = await runtime.initPid(life.container, signal);
  if (pid === undefined) throw new AppError('unavailable', 'The instance has ended');
  const namespace = `/proc/${pid}/ns/net`;
  // of a privileged instance it may be the host's
  if ((await readlink(namespace)) === (await readlink('/proc/self/ns/net')))
    throw new AppError('unsupported', 'The instance has the network of the host');
  await context.host.run(['nsenter', `--net=${namespace}`, '--', 'nft', '-f', '-'], { input: script, signal });
}
