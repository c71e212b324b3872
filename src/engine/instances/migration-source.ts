// The end of a migration that an instance, or one of its snapshots, leaves from.
import { join } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import { Reverter } from '#src/lib/reverter.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import { NO_NOTES } from '../db/root-volumes.ts';
import {
  type Channels,
  dial,
  ExpectedConnections,
  type PeerOperation,
  websocketSpec,
} from '../migration/connections.ts';
import { send, type Sender } from '../migration/session.ts';
import { indexOfVolume } from '../migration/volume-index.ts';
import type { StreamSender } from '../migration/streams.ts';
import { type CopySource, mountForReading } from '../storage/copy-volume.ts';
import { samePlaces, streamSender } from '../storage/volume-streams.ts';
import type { OperationHandle } from '../types.ts';
import { refuseOnBlock } from './block-rules.ts';
import type { CopiedInstance, InstanceCopies, NotesOfCopy } from './copy.ts';
import { instancePaths, lockKey } from './instance-paths.ts';
import { messageOfIdMap, messageOfSnapshot } from './migration-rows.ts';
import { operationSpec } from './operation-spec.ts';
import { progressOf } from './progress.ts';
import type { SavedStates } from './saved-states.ts';
import { FILES_KEY, readInstanceFiles } from './sent-files.ts';
import type { Supervisor } from './supervisor.ts';

const CHECK_MS = 30_000;

export interface MigrationSourceParts {
  readonly context: EngineContext;
  readonly supervisor: Supervisor;
  readonly copies: InstanceCopies;
  readonly states: SavedStates;
}

export interface MigrationRequest {
  readonly copied: CopiedInstance;
  /** With the state of its memory. */
  readonly live: boolean;
  /** Undefined: the other end connects. */
  readonly target?: PeerOperation;
}

export class MigrationSource {
  readonly #parts: MigrationSourceParts;

  constructor(parts: MigrationSourceParts) {
    this.#parts = parts;
  }

  /** An operation: one that waits for connections, or connects to the target. */
  async start({ copied, live, target }: MigrationRequest): Promise<string> {
    const { context, supervisor, states } = this.#parts;
    const { record, snapshot } = copied;
    refuseOnBlock(record, 'migrated');
    if (live && !snapshot && supervisor.status(record.id) !== 'Stopped') {
      const doing = 'Unable to perform container live migration';
      await states.require(record, doing, AbortSignal.timeout(CHECK_MS));
      throw new AppError('unsupported', `${doing}. This server does not move running instances with their state`);
    }
    const spec = operationSpec(snapshot ? 'Transferring snapshot' : 'Migrating instance', record.project, [
      record.name,
    ]);
    if (target)
      return context.operations.start(spec, (operation) => this.#run(copied, operation, (s) => dial(target, s)));
    const expected = new ExpectedConnections();
    return context.operations.start(websocketSpec(spec, expected), (operation) => {
      return this.#run(copied, operation, (signal) => expected.wait(signal));
    });
  }

  async #run(
    copied: CopiedInstance,
    operation: OperationHandle,
    connect: (signal: AbortSignal) => Promise<Channels>,
  ): Promise<void> {
    const { context } = this.#parts;
    const { signal } = operation;
    using channels = await connect(signal);
    const work = async (): Promise<void> => {
      const { project, name } = copied.record;
      const record = context.database.instances.get(project, name);
      await this.#send({ ...copied, record }, channels, operation);
    };
    await context.locks.run(lockKey(copied.record), work, signal);
  }

  async #send(copied: CopiedInstance, channels: Channels, operation: OperationHandle): Promise<void> {
    const { context, copies } = this.#parts;
    const { signal } = operation;
    const { host } = context;
    await copies.withStillSource(copied, { inOnePool: false }, signal, async (from) => {
      const owners = await this.#owners(from, signal);
      const names = copies.snapshotsOf(copied).map(({ name }) => name);
      const streams = await streamSender(from, samePlaces(names), signal);
      const sender = this.#sender(copied, from, { owners, signal, streams });
      const { pool, name } = copied.record;
      await send(
        { host, channels, signal, rsync: context.pools.rsync(pool), progress: progressOf(operation, name) },
        sender,
      );
    });
  }

  async #owners(from: CopySource, signal: AbortSignal) {
    await using mounts = new Reverter(this.#parts.context.log); // never committed: only a look
    return (await mountForReading(from, mounts, signal)).owners;
  }

  #sender(
    copied: CopiedInstance,
    from: CopySource,
    {
      owners,
      signal,
      streams,
    }: {
      readonly owners: CopySource['idMap'];
      readonly signal: AbortSignal;
      readonly streams: StreamSender | undefined;
    },
  ): Sender {
    const { context, copies } = this.#parts;
    const snapshots = copies.snapshotsOf(copied);
    const paths = instancePaths(context.paths, copied.record);
    const own = copied.snapshot ? join(paths.snapshots, copied.snapshot.name) : paths.home;
    return {
      header: { idmap: messageOfIdMap(owners), snapshots: snapshots.map(messageOfSnapshot) },
      ...(streams && { streams }),
      index: async (names) => {
        const sent = snapshots.filter(({ name }) => names.includes(name));
        const index = indexOf(copied.record, sent, copies.notesOf(copied));
        const places = [['', own], ...names.map((name) => [name, join(paths.snapshots, name)])] as const;
        const files = places.map(async ([name = '', directory = '']) => {
          return [name, await readInstanceFiles(context.host, directory)] as const;
        });
        return { ...index, [FILES_KEY]: Object.fromEntries(await Promise.all(files)) };
      },
      withFiles: async (snapshot, use) => {
        await using mounts = new Reverter(context.log); // never committed: mounted only while it is sent
        const source = snapshot === undefined ? from : { ...from, snapshot };
        const root = await mountForReading(source, mounts, signal);
        const files = await filesOf(context, snapshot === undefined ? own : join(paths.snapshots, snapshot));
        await use([...files, root.rootfsPath]);
      },
    };
  }
}

async function filesOf({ host }: EngineContext, directory: string): Promise<readonly string[]> {
  const found: string[] = [];
  for (const name of ['metadata.yaml', 'templates']) {
    if (await host.exists(join(directory, name))) found.push(join(directory, name));
  }
  return found;
}

/** What LXD calls the backup configuration, as far as its other end reads it. */
function indexOf(
  { name }: InstanceRecord,
  snapshots: readonly { readonly name: string; readonly expiresAt: string }[],
  notes: NotesOfCopy,
) {
  const volume = { name, type: 'container', content_type: 'filesystem', ...notes.own };
  const volumeSnapshots = snapshots.map((snapshot) => {
    const own = notes.snapshots.get(snapshot.name) ?? NO_NOTES;
    return { name: snapshot.name, ...own, content_type: 'filesystem', expires_at: snapshot.expiresAt };
  });
  return indexOfVolume(volume, volumeSnapshots);
}
