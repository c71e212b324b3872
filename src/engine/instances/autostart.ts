// Which instances start by themselves when the daemon does, and in which order (lxd-engine-contract section 4.5).
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { messageOf } from '#src/lib/errors.ts';
import { sleep } from '#src/lib/wait.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import { projectSuffix } from '../projects/project-url.ts';
import type { ConfigMap } from '../types.ts';
import { expander } from './expansion.ts';
import { lockKey } from './instance-paths.ts';
import type { InstanceLifecycle } from './lifecycle.ts';
import type { Supervisor } from './supervisor.ts';
import { parseBoolean } from './values.ts';
import { readIfPresent } from '#src/host/read-if-present.ts';

const START_TRIES = 3;
const RETRY_MS = 5000;
const WARNING = 'Failed to autostart instance';
/** Stands in the note of the boot after a daemon has stopped all instances. */
const STOPPED_ALL = 'stopped all';

export interface AutostartParts {
  readonly context: EngineContext;
  readonly supervisor: Supervisor;
  readonly lifecycle: Pick<InstanceLifecycle, 'start'>;
  /** How long before the next try. */
  readonly retryMs?: number;
}

type Noting = Pick<EngineContext, 'host' | 'paths'>;

const noteOf = ({ paths }: Noting) => join(paths.root, 'boot-id');

async function bootOf({ host }: Noting): Promise<string> {
  return (await host.readFile('/proc/sys/kernel/random/boot_id')).trim();
}

/**
 * True from the first start of the daemon after the host came up, or after a daemon stopped all instances, until a daemon
 * has started what is to be started.
 */
export async function isNewBoot(context: Noting): Promise<boolean> {
  const last = await readIfPresent(context.host, noteOf(context));
  if (last === undefined) await noteBoot(context);
  return last !== undefined && last.trim() !== (await bootOf(context));
}

/** All that is to be started by itself has been. */
export async function noteBoot(context: Noting): Promise<void> {
  await context.host.writeFile(noteOf(context), `${await bootOf(context)}\n`);
}

/** The next daemon starts them again, even if the host does not go down. */
export async function noteStoppedAll(context: Noting): Promise<void> {
  await context.host.writeFile(noteOf(context), `${STOPPED_ALL}\n`);
}

export interface Autostart {
  readonly record: InstanceRecord;
  readonly priority: number;
  /** After its start nothing else is started for so long. */
  readonly delaySeconds: number;
}

/** In order: boot.autostart, or unset and running when the host went down. */
export function autostartOrder(
  records: readonly InstanceRecord[],
  expand: (record: InstanceRecord) => ConfigMap,
): readonly Autostart[] {
  return records
    .map((record) => ({ record, config: expand(record) }))
    .filter(({ config }) => {
      const power = config['volatile.last_state.power'];
      return parseBoolean(config['boot.autostart'], power === 'RUNNING');
    })
    .map(({ record, config }) => ({
      record,
      delaySeconds: Number(config['boot.autostart.delay'] ?? 0),
      priority: Number(config['boot.autostart.priority'] ?? 0),
    }))
    .sort((left, right) => right.priority - left.priority || (left.record.name < right.record.name ? -1 : 1));
}

/** Taken before reconciling, which writes that they are stopped. */
export function planAutostart({ context }: Pick<AutostartParts, 'context'>): readonly Autostart[] {
  const expand = expander(context.database);
  return autostartOrder(context.database.instances.list(), (record) => expand(record).config);
}

/** And these last, whatever their configuration says. */
export function withThose(plan: readonly Autostart[], again: readonly InstanceRecord[]): readonly Autostart[] {
  const planned = new Set(plan.map(({ record }) => record.id));
  const more = again.filter(({ id }) => !planned.has(id));
  return [...plan, ...more.map((record) => ({ record, priority: 0, delaySeconds: 0 }))];
}

/** Until they have started: a daemon that ends before that leaves them to the next one. */
export function keepPlanned({ context }: Pick<AutostartParts, 'context'>, plan: readonly Autostart[]): void {
  const { instances } = context.database;
  for (const { record } of plan) {
    if (record.config['volatile.last_state.power'] !== 'RUNNING') continue;
    const now = instances.find(record.project, record.name);
    if (now) instances.update(now.id, { config: { ...now.config, 'volatile.last_state.power': 'RUNNING' } });
  }
}

/** Some at a time; one priority after the other; nothing beside one that has a delay until that has passed. Gives what did not start. */
export async function autostart(
  parts: AutostartParts,
  plan: readonly Autostart[],
  signal: AbortSignal,
): Promise<readonly Autostart[]> {
  const failed: Autostart[] = [];
  const starting = new Set<Promise<void>>();
  let priority = plan[0]?.priority;
  for (const next of plan) {
    signal.throwIfAborted();
    if (next.priority !== priority) await Promise.all(starting);
    priority = next.priority;
    while (starting.size >= availableParallelism()) await Promise.race(starting);
    const start = (async () => {
      if (!(await startOne(parts, next.record, signal))) failed.push(next);
    })();
    starting.add(start);
    // oxlint-disable-next-line promise/prefer-await-to-then -- leaves the set whenever it ends
    void start.finally(() => starting.delete(start)).catch(() => undefined);
    if (next.delaySeconds <= 0) continue;
    await Promise.all(starting);
    await sleep(next.delaySeconds * 1000, signal);
  }
  await Promise.all(starting);
  return failed;
}

async function startOne(parts: AutostartParts, record: InstanceRecord, signal: AbortSignal): Promise<boolean> {
  const { context, retryMs = RETRY_MS } = parts;
  const { warnings } = context.database;
  const entityUrl = `/1.0/instances/${record.name}${projectSuffix(record.project)}`;
  for (let tries = 1; ; tries++) {
    const failure = await tryStart(parts, record, signal);
    if (failure === undefined) {
      warnings.resolve(WARNING, entityUrl);
      return true;
    }
    // it is the next daemon's: all that was to be started has not been
    signal.throwIfAborted();
    context.log.warn('autostart failed', { instance: record.name, tries, error: failure });
    if (tries >= START_TRIES) {
      warnings.raise({ type: WARNING, entityUrl, project: record.project, message: failure, severity: 'low' });
      return false;
    }
    await sleep(retryMs, signal);
  }
}

/** The text of what went wrong. */
async function tryStart(parts: AutostartParts, { id, ...key }: InstanceRecord, signal: AbortSignal) {
  const { context, supervisor, lifecycle } = parts;
  try {
    await context.locks.run(
      lockKey(key),
      async () => {
        const record = context.database.instances.find(key.project, key.name);
        if (!record || supervisor.status(id) !== 'Stopped') return;
        await lifecycle.start(record, signal, { stateful: record.stateful });
        const source = `/1.0/instances/${record.name}`;
        context.events.lifecycle({ action: 'instance-started', source, project: record.project });
      },
      signal,
    );
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}
