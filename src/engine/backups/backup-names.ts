// backups/instances/INSTANCE/BACKUP and backups/custom/POOL/PROJECT_VOLUME/BACKUP, where LXD has the files of backups and scripts look for
// them: links to our files, made of what the database says.
import { mkdirSync, readdirSync, rmdirSync, rmSync, symlinkSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { messageOf } from '#src/lib/errors.ts';
import type { Service } from '#src/lib/service.ts';
import type { EngineContext } from '../context.ts';
import type { EventHub } from '../events/events.ts';
import { hostName } from '../instances/instance-paths.ts';

const CHANGES = /^(?:instance|storage-volume)-(?:backup-(?:created|renamed|deleted)|renamed|deleted)$/u;

type Context = Pick<EngineContext, 'database' | 'paths' | 'log'>;

/** Starts after those whose files it names have removed what they do not know. */
export class BackupNames implements Service {
  readonly name = 'names of backups';
  readonly #context: Context;
  readonly #events: EventHub;
  /** The files that the links lead to. */
  readonly #made = new Map<string, string>();
  #subscription: Disposable | undefined;

  constructor(context: Context, events: EventHub) {
    this.#context = context;
    this.#events = events;
  }

  async start(): Promise<void> {
    this.#subscription = this.#events.subscribe({ types: new Set(['lifecycle'] as const) }, (_text, { metadata }) => {
      if (CHANGES.test(String(metadata['action']))) this.#update();
    });
    this.#update();
  }

  async stop(): Promise<void> {
    this.#subscription?.[Symbol.dispose]();
  }

  #update(): void {
    const wanted = this.#wanted();
    for (const [path, file] of this.#made) if (wanted.get(path) !== file) this.#try(path, () => this.#remove(path));
    for (const [path, file] of wanted) if (!this.#made.has(path)) this.#try(path, () => this.#make(path, file));
  }

  #wanted(): ReadonlyMap<string, string> {
    const { database, paths } = this.#context;
    const wanted = new Map<string, string>();
    const add = (kind: string, place: readonly string[], file: string): void => {
      if (place.every(isFileName)) wanted.set(join(paths.backups, kind, ...place), join(paths.backups, kind, file));
    };
    for (const { project, owner, name, file } of database.backups.places()) {
      add('instances', [hostName({ project, name: owner }), name], file);
    }
    for (const { pool, project, owner, name, file } of database.volumeBackups.places()) {
      add('custom', [pool, `${project}_${owner}`, name], file);
    }
    return wanted;
  }

  #make(path: string, file: string): void {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    symlinkSync(relative(dirname(path), file), path);
    this.#made.set(path, file);
  }

  #remove(path: string): void {
    rmSync(path, { force: true });
    this.#made.delete(path);
    for (let at = dirname(path); dirname(at) !== this.#context.paths.backups; at = dirname(at)) {
      if (readdirSync(at).length > 0) return;
      rmdirSync(at);
    }
  }

  /** The backup is there without its name; whoever changes it is not kept from that. */
  #try(path: string, work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#context.log.warn('the name of a backup was not changed', { path, error: messageOf(error) });
    }
  }
}

/** Names of backups are users' text, which must not lead elsewhere or look like a file that is being written. */
function isFileName(name: string): boolean {
  return name !== '.' && name !== '..' && !/[/\0]|\.part$/u.test(name);
}
