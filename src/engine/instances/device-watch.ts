// Notices when something comes or goes where devices of running instances are looked for.
import { dirname } from 'node:path';
import type { Watched } from '#drivers/devices/driver.ts';
import { DirectoryWatch } from '#src/host/inotify.ts';
import { watchHardware } from '#src/host/uevents.ts';
import { onNobodysBehalf } from '../events/requestor.ts';

/** Several things happen at once when hardware comes. */
const SETTLE_MS = 20;
const ASK_MS = 1000;

interface Entry {
  readonly watched: Watched;
  readonly changed: () => void;
  /** Numbers of watches. */
  watches: readonly number[];
  timer: NodeJS.Timeout | undefined;
  /** That asks whether what works for the device has ended. */
  asking: NodeJS.Timeout | undefined;
}

export class DeviceWatch {
  readonly #entries = new Map<string, Entry>();
  #directories: DirectoryWatch | undefined;
  #hardware: { close(): void } | undefined;

  /** Calls `changed` some time after a change; once for several. Replaces what was watched under this key. */
  set(key: string, watched: Watched, changed: () => void): void {
    this.drop(key);
    const entry: Entry = {
      watched,
      changed: () => onNobodysBehalf(changed),
      watches: [],
      timer: undefined,
      asking: undefined,
    };
    this.#entries.set(key, entry);
    this.#arm(entry);
    this.#ask(entry);
  }

  /** Once more after the answer: no two are on their way. */
  #ask(entry: Entry): void {
    const { hasEnded } = entry.watched;
    if (!hasEnded) return;
    entry.asking = setTimeout(() => {
      void hasEnded()
        .catch(() => false) // its note is being written, or went
        .then((ended) => {
          if (!entry.asking) return;
          if (ended) entry.changed();
          this.#ask(entry);
        });
    }, ASK_MS).unref();
  }

  #stop(entry: Entry): void {
    clearTimeout(entry.timer);
    clearTimeout(entry.asking);
    entry.asking = undefined;
  }

  drop(key: string): void {
    const entry = this.#entries.get(key);
    if (!entry) return;
    this.#stop(entry);
    this.#entries.delete(key);
    this.#release(entry.watches);
    if (this.#entries.size === 0) this.close();
  }

  dropAll(prefix: string): void {
    for (const key of this.#entries.keys()) if (key.startsWith(prefix)) this.drop(key);
  }

  close(): void {
    for (const entry of this.#entries.values()) this.#stop(entry);
    this.#entries.clear();
    this.#directories?.close();
    this.#hardware?.close();
    this.#directories = undefined;
    this.#hardware = undefined;
  }

  /** A directory that is not there is waited for in the one that it will be in. */
  #arm(entry: Entry): void {
    const { directories, hardware } = entry.watched;
    if (hardware) this.#hardware ??= watchHardware(() => this.#notice((one) => one.watched.hardware));
    if (directories.length === 0) return;
    this.#directories ??= new DirectoryWatch((watch) => this.#notice(({ watches }) => watches.includes(watch)));
    const before = entry.watches;
    entry.watches = directories.map((directory) => this.#watch(directory));
    this.#release(before);
  }

  #watch(directory: string): number {
    for (let at = directory; ; at = dirname(at)) {
      const watch = this.#directories?.add(at);
      if (watch !== undefined || at === '/') return watch ?? -1;
    }
  }

  #release(watches: readonly number[]): void {
    const used = new Set([...this.#entries.values()].flatMap((entry) => entry.watches));
    for (const watch of watches) if (!used.has(watch)) this.#directories?.remove(watch);
  }

  #notice(concerns: (entry: Entry) => boolean): void {
    for (const entry of this.#entries.values()) {
      if (!concerns(entry) || entry.timer) continue;
      entry.timer = setTimeout(() => {
        entry.timer = undefined;
        this.#arm(entry);
        entry.changed();
      }, SETTLE_MS).unref();
    }
  }
}
